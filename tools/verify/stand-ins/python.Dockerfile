# python:3.12-slim: the same places and names as in the official image.
FROM debian:bookworm-slim
COPY python /usr/local/
COPY ca.crt /etc/ssl/certs/ca-certificates.crt
COPY pip.conf /etc/pip.conf
ENV LANG=C.UTF-8 SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
RUN apt-get -qq update \
    && apt-get -qq install -y --no-install-recommends libbz2-1.0 libffi8 liblzma5 libreadline8 libsqlite3-0 libssl3 zlib1g \
        >/dev/null \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/* \
    && ldconfig \
    && ln -sf python3.12 /usr/local/bin/python3 \
    && ln -sf python3.12 /usr/local/bin/python \
    && python -m ensurepip >/dev/null \
    && ln -sf pip3 /usr/local/bin/pip \
    && find /usr/local -name __pycache__ -prune -exec rm -rf {} + \
    && python -B -c "import ctypes, lzma, sqlite3, ssl"
CMD ["python3"]
