# prom/alertmanager: the official image's user, paths and entry point.
FROM debian:bookworm-slim
COPY alertmanager /bin/alertmanager
# Debian's has its templates outside.
COPY share /usr/share/prometheus/
RUN mkdir -p /alertmanager /etc/alertmanager && chown 65534:65534 /alertmanager
USER 65534
VOLUME /alertmanager
WORKDIR /alertmanager
ENTRYPOINT ["/bin/alertmanager"]
CMD ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager"]
