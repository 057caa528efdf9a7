/* The load: sends one request again and again, checks that every answer is whole, and tells what was seen and when.
 *
 *     load --port P --request FILE --seconds S [--warm S] [--connections N] [--rate R] [--close] [--stream TOKENS]
 *          [--ramp S] [--drain S] [--count N] [--seed N] [--any]
 *
 * FILE has the bytes of a request, head and body. Without a rate it is a closed loop: N connections, each of which asks
 * again once it is answered, and which begin over `ramp` seconds. With a rate it is an open loop: requests begin at
 * moments of a Poisson process that the seed fixes, whatever the answers do, each on an idle connection of at most N;
 * latencies count from the moment at which a request was to begin, so that a queue shows.
 *
 * `begin` and `end` are printed when the measured seconds begin, after `warm` seconds, and end, so that others can
 * measure the same seconds; then requests that are under way may end within `drain` seconds; then one line of JSON. With
 * a count that many requests are sent in all, and nothing is printed before they are answered.
 *
 * With --any an answer is whole when its framing is: for engines that are not ours, of whose tokens nothing is measured.
 *
 * The engine writes into each token its number and when it was sent, "~3:1f00ab~" (engine.c), so the way of a token is
 * measured for that token: there is no need to take percentiles from each other. Times in the output are microseconds.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define NEVER UINT64_MAX
#define HEAD_MAX 16384
#define TAIL_MAX 1024

/* Histograms: 64 steps to each power of two, so a percentile is true to 1.6 %. */

#define STEPS 64
typedef struct {
    uint64_t counts[64 * STEPS], count, max;
    double sum;
} histogram;

static void note(histogram *h, uint64_t ns) {
    int power = ns < STEPS ? 0 : 63 - __builtin_clzll(ns) - 6;
    h->counts[(ns >> power) + (uint64_t)power * STEPS]++;
    h->count++;
    h->sum += (double)ns;
    if (ns > h->max) h->max = ns;
}

static double percentile_us(const histogram *h, double share) {
    uint64_t wanted = (uint64_t)ceil(share * (double)h->count), seen = 0;
    for (uint64_t at = 0; at < 64 * STEPS; at++) {
        seen += h->counts[at];
        if (seen < wanted || !h->counts[at]) continue;
        int power = at < 2 * STEPS ? 0 : (int)(at / STEPS) - 1;
        double low = (double)((at - (uint64_t)power * STEPS) << power), width = (double)(1ull << power) - 1;
        return fmin(low + width / 2, (double)h->max) / 1000;
    }
    return 0;
}

static void tell_histogram(const char *name, const histogram *h) {
    printf(",\"%s\":{\"count\":%llu,\"mean\":%.1f,\"p50\":%.1f,\"p90\":%.1f,\"p99\":%.1f,\"p999\":%.1f,\"max\":%.1f}", name,
           (unsigned long long)h->count, h->count ? h->sum / (double)h->count / 1000 : 0, percentile_us(h, .5),
           percentile_us(h, .9), percentile_us(h, .99), percentile_us(h, .999), (double)h->max / 1000);
}

/* What is seen. */

static histogram latency, first_token, transit, gap, gap_added, behind;

static struct {
    uint64_t requests, started, tokens, cut, status, broken, order, unfinished, refused, again;
    uint64_t all_answered;
} seen;

static char sample[512]; /* of the first bad answer */

static struct {
    int port, connections, stream;
    double rate, warm, seconds, ramp, drain;
    uint64_t count, seed;
    bool closes, any;
    char *request;
    size_t request_len;
} load = {.connections = 1, .seconds = 5, .drain = 2, .seed = 1};

static uint64_t begin_at, end_at, given_up_at;

typedef enum { IDLE, SENDING, HEAD, BODY } phase;
typedef enum { BY_LENGTH, BY_CHUNKS, BY_CLOSE } framing;

typedef struct conn {
    int fd;
    phase phase;
    bool wants_write, reused;
    uint64_t asked_at;
    size_t sent, head_len;
    char head[HEAD_MAX + 1];
    int status;
    bool closes, whole;
    framing framing;
    uint64_t left;        /* of the body, or of the chunk */
    char size_line[32];   /* of a chunk, as far as it is here */
    int size_len;
    enum { SIZE, DATA, DATA_END, TRAILER } chunk;
    char mark[40];        /* between two ~, as far as it is here */
    int mark_len;         /* -1 outside */
    int tokens;
    uint64_t token_sent, token_seen;
    char tail[TAIL_MAX];
    size_t tail_len;
} conn;

static int poller;
static conn *conns;
static int *idle, idle_len;
static uint64_t random_state;
static int in_flight;

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
}

static double chance(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}

static bool measured(uint64_t at) { return at >= begin_at && at < end_at; }

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Connections. */

static void watch(conn *c, int operation) {
    struct epoll_event event = {.events = EPOLLIN | (c->wants_write ? EPOLLOUT : 0), .data.ptr = c};
    if (epoll_ctl(poller, operation, c->fd, &event)) fail("load: epoll_ctl");
}

static void hang_up(conn *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
    c->reused = false;
}

static void connect_to(conn *c) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons((uint16_t)load.port);
    int on = 1;
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0) fail("load: socket");
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) fail("load: connect");
    c->wants_write = true;
    watch(c, EPOLL_CTL_ADD);
}

static void send_rest(conn *c) {
    while (c->sent < load.request_len) {
        ssize_t wrote = send(c->fd, load.request + c->sent, load.request_len - c->sent, MSG_NOSIGNAL);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) { /* a broken connection is seen by reading it */
            bool waits = errno == EAGAIN;
            if (waits != c->wants_write) {
                c->wants_write = waits;
                watch(c, EPOLL_CTL_MOD);
            }
            return;
        }
        c->sent += (size_t)wrote;
    }
    c->phase = HEAD;
    if (c->wants_write) {
        c->wants_write = false;
        watch(c, EPOLL_CTL_MOD);
    }
}

static void send_request(conn *c) {
    c->phase = SENDING;
    c->sent = c->head_len = c->tail_len = 0;
    c->tokens = 0;
    c->mark_len = -1;
    c->whole = false;
    if (c->fd < 0)
        connect_to(c);
    else
        send_rest(c);
}

static void ask(conn *c, uint64_t asked_at) {
    c->asked_at = asked_at;
    in_flight++;
    seen.started++;
    send_request(c);
}

static void ended(conn *c, uint64_t now) {
    in_flight--;
    seen.all_answered++;
    if (measured(now)) {
        seen.requests++;
        note(&latency, now - c->asked_at);
    }
    c->phase = IDLE;
    bool stays = !load.closes && !c->closes && c->framing != BY_CLOSE && c->fd >= 0;
    if (!stays) hang_up(c);
    c->reused = stays;
    bool more = load.count ? seen.started < load.count : now < end_at;
    if (!load.rate && more)
        ask(c, now);
    else
        idle[idle_len++] = (int)(c - conns);
}

static void bad(conn *c, uint64_t *kind, const char *what, uint64_t now) {
    ++*kind;
    if (!*sample) {
        size_t length = (size_t)snprintf(sample, sizeof sample, "%s (status %d, %d tokens): ", what, c->status, c->tokens);
        for (size_t at = 0; at < c->tail_len && at < 200; at++) {
            char letter = c->tail[at];
            sample[length++] = letter < ' ' || letter == '"' || letter == '\\' || letter > '~' ? '.' : letter;
        }
        sample[length] = 0;
    }
    hang_up(c);
    c->framing = BY_CLOSE;
    ended(c, now);
}

/* Answers. */

static void see_mark(conn *c, uint64_t now) {
    c->mark[c->mark_len] = 0;
    if (!strcmp(c->mark, "whole")) {
        c->whole = true;
        return;
    }
    char *colon;
    long number = strtol(c->mark, &colon, 10);
    if (*colon != ':') return;
    uint64_t sent = strtoull(colon + 1, NULL, 16);
    if (number != c->tokens) {
        seen.order++;
        return;
    }
    if (measured(now)) {
        seen.tokens++;
        note(&transit, now > sent ? now - sent : 0);
        if (number == 0) {
            note(&first_token, now - c->asked_at);
        } else {
            uint64_t between = now - c->token_seen, meant = sent - c->token_sent;
            note(&gap, between);
            note(&gap_added, between > meant ? between - meant : meant - between);
        }
    }
    c->token_sent = sent;
    c->token_seen = now;
    if (++c->tokens == load.stream) c->tail_len = 0; /* what follows must have [DONE] */
}

static void see_text(conn *c, const char *text, size_t length, uint64_t now) {
    size_t kept = length < TAIL_MAX - c->tail_len ? length : TAIL_MAX - c->tail_len;
    bool last = load.stream && c->tokens == load.stream;
    if (last || c->status != 200) {
        memcpy(c->tail + c->tail_len, text, kept);
        c->tail_len += kept;
        if (last) return;
    }
    const char *end = text + length;
    while (text < end) {
        const char *mark = memchr(text, '~', (size_t)(end - text));
        const char *stop = mark ? mark : end;
        if (c->mark_len >= 0) {
            for (; text < stop; text++)
                if (c->mark_len < (int)sizeof c->mark - 1) c->mark[c->mark_len++] = *text;
        }
        if (!mark) return;
        text = mark + 1;
        if (c->mark_len < 0) {
            c->mark_len = 0;
            continue;
        }
        see_mark(c, now);
        c->mark_len = -1;
        if (load.stream && c->tokens == load.stream) {
            see_text(c, text, (size_t)(end - text), now);
            return;
        }
    }
}

static void finish(conn *c, uint64_t now) {
    if (c->status != 200)
        bad(c, &seen.status, "status", now);
    else if (load.any)
        ended(c, now);
    else if (load.stream ? c->tokens != load.stream || !memmem(c->tail, c->tail_len, "[DONE]", 6) : !c->whole)
        bad(c, &seen.unfinished, "not whole", now);
    else
        ended(c, now);
}

/* How much of the bytes belongs to this answer; *done when it ends with them. */
static size_t see_chunks(conn *c, const char *bytes, size_t length, uint64_t now, bool *done) {
    size_t at = 0;
    while (at < length) {
        if (c->chunk == DATA) {
            size_t part = length - at < c->left ? length - at : (size_t)c->left;
            see_text(c, bytes + at, part, now);
            at += part;
            c->left -= part;
            if (!c->left) c->chunk = DATA_END;
            continue;
        }
        char letter = bytes[at++];
        if (letter == '\r') continue;
        if (letter != '\n') {
            if (c->size_len < (int)sizeof c->size_line - 1) c->size_line[c->size_len++] = letter;
            continue;
        }
        int line = c->size_len;
        c->size_line[line] = 0;
        c->size_len = 0;
        if (c->chunk == SIZE) {
            c->left = strtoull(c->size_line, NULL, 16);
            c->chunk = c->left ? DATA : TRAILER;
        } else if (c->chunk == DATA_END) {
            c->chunk = SIZE;
        } else if (!line) {
            *done = true;
            return at;
        }
    }
    return at;
}

static void see_head(conn *c) {
    c->head[c->head_len] = 0;
    c->status = atoi(c->head + 9);
    c->closes = strcasestr(c->head, "\nconnection: close");
    char *length = strcasestr(c->head, "\ncontent-length:");
    c->framing = strcasestr(c->head, "\ntransfer-encoding: chunked") ? BY_CHUNKS : length ? BY_LENGTH : BY_CLOSE;
    c->left = length ? strtoull(length + 16, NULL, 10) : 0;
    c->chunk = SIZE;
    c->size_len = 0;
    c->phase = BODY;
}

static void see(conn *c, const char *bytes, size_t length, uint64_t now) {
    if (c->phase == HEAD) {
        size_t before = c->head_len, part = length < HEAD_MAX - before ? length : HEAD_MAX - before;
        memcpy(c->head + before, bytes, part);
        size_t from = before > 3 ? before - 3 : 0;
        char *end = memmem(c->head + from, before + part - from, "\r\n\r\n", 4);
        c->head_len = before + part;
        if (!end) {
            if (c->head_len == HEAD_MAX) bad(c, &seen.broken, "too long a head", now);
            return;
        }
        c->head_len = (size_t)(end - c->head) + 4;
        see_head(c);
        size_t took = c->head_len - before;
        bytes += took;
        length -= took;
    }
    bool done = false;
    if (c->framing == BY_CHUNKS) {
        see_chunks(c, bytes, length, now, &done);
    } else {
        size_t part = c->framing == BY_LENGTH && length > c->left ? (size_t)c->left : length;
        see_text(c, bytes, part, now);
        c->left -= c->framing == BY_LENGTH ? part : 0;
        done = c->framing == BY_LENGTH && !c->left;
    }
    if (done) finish(c, now);
}

static void receive(conn *c) {
    static char bytes[262144];
    ssize_t got = recv(c->fd, bytes, sizeof bytes, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    uint64_t now = now_ns();
    if (got > 0 && (c->phase == HEAD || c->phase == BODY)) {
        see(c, bytes, (size_t)got, now);
        return;
    }
    if (c->phase == IDLE || got > 0) {
        hang_up(c);
        if (c->phase != IDLE) bad(c, &seen.broken, "answered before it was asked", now);
    } else if (c->phase == BODY && c->framing == BY_CLOSE && !got) {
        hang_up(c);
        finish(c, now);
    } else if (c->reused && c->phase != BODY && !c->head_len) {
        seen.again++; /* the other side closed a connection that nobody used, just when it was used */
        hang_up(c);
        send_request(c);
    } else {
        bad(c, c->sent ? &seen.broken : &seen.refused, got ? strerror(errno) : "closed", now);
    }
}

/* The run. */

static void tell(double cpu_s) {
    printf("{\"requests\":%llu,\"started\":%llu,\"tokens\":%llu,\"seconds\":%.6f,\"cpu_share\":%.4f,\"answered\":%llu,"
           "\"cut\":%llu,\"reconnected\":%llu,\"bad\":{\"status\":%llu,\"broken\":%llu,\"order\":%llu,\"unfinished\":%llu,"
           "\"refused\":%llu},\"sample\":\"%s\"",
           (unsigned long long)seen.requests, (unsigned long long)seen.started, (unsigned long long)seen.tokens,
           (double)(end_at - begin_at) / 1e9, cpu_s / ((double)(end_at - begin_at) / 1e9),
           (unsigned long long)seen.all_answered, (unsigned long long)seen.cut, (unsigned long long)seen.again,
           (unsigned long long)seen.status, (unsigned long long)seen.broken, (unsigned long long)seen.order,
           (unsigned long long)seen.unfinished, (unsigned long long)seen.refused, sample);
    tell_histogram("latency", &latency);
    tell_histogram("first_token", &first_token);
    tell_histogram("transit", &transit);
    tell_histogram("gap", &gap);
    tell_histogram("gap_added", &gap_added);
    tell_histogram("behind", &behind);
    printf("}\n");
}

static double cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static char *read_file(const char *path, size_t *length) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    fseek(file, 0, SEEK_END);
    *length = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(*length + 1);
    if (!bytes || fread(bytes, 1, *length, file) != *length) fail(path);
    fclose(file);
    return bytes;
}

static void read_arguments(int count, char **arguments) {
    static const struct option options[] = {
        {"port", 1, 0, 'p'}, {"request", 1, 0, 'q'}, {"seconds", 1, 0, 's'}, {"warm", 1, 0, 'w'},
        {"connections", 1, 0, 'c'}, {"rate", 1, 0, 'r'}, {"close", 0, 0, 'x'}, {"stream", 1, 0, 't'},
        {"ramp", 1, 0, 'm'}, {"drain", 1, 0, 'd'}, {"count", 1, 0, 'n'}, {"seed", 1, 0, 'e'}, {"any", 0, 0, 'a'}, {0, 0, 0, 0}};
    int option;
    while ((option = getopt_long(count, arguments, "", options, NULL)) != -1) {
        switch (option) {
        case 'p': load.port = atoi(optarg); break;
        case 'q': load.request = read_file(optarg, &load.request_len); break;
        case 's': load.seconds = atof(optarg); break;
        case 'w': load.warm = atof(optarg); break;
        case 'c': load.connections = atoi(optarg); break;
        case 'r': load.rate = atof(optarg); break;
        case 'x': load.closes = true; break;
        case 't': load.stream = atoi(optarg); break;
        case 'm': load.ramp = atof(optarg); break;
        case 'd': load.drain = atof(optarg); break;
        case 'n': load.count = strtoull(optarg, NULL, 10); break;
        case 'e': load.seed = strtoull(optarg, NULL, 10); break;
        case 'a': load.any = true; break;
        default: exit(2);
        }
    }
    if (!load.port || !load.request || load.connections < 1) {
        fprintf(stderr, "load: --port, --request and --seconds are needed, and at least one connection\n");
        exit(2);
    }
}

int main(int count, char **arguments) {
    read_arguments(count, arguments);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1ul);
    setvbuf(stdout, NULL, _IOLBF, 0);
    random_state = load.seed * 0x9e3779b97f4a7c15ull + 1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    conns = calloc((size_t)load.connections, sizeof *conns);
    idle = calloc((size_t)load.connections, sizeof *idle);
    if (!conns || !idle) fail("load: calloc");
    for (int at = 0; at < load.connections; at++) conns[at].fd = -1;

    uint64_t start = now_ns(), next = start;
    begin_at = load.count ? start : start + (uint64_t)(load.warm * 1e9);
    end_at = load.count ? NEVER : begin_at + (uint64_t)(load.seconds * 1e9);
    given_up_at = load.count ? NEVER : end_at + (uint64_t)(load.drain * 1e9);
    int fresh = 0; /* connections that have not begun */
    bool begun = false, over = false;
    double cpu_before = 0, cpu_used = 0;
    struct epoll_event events[512];
    for (;;) {
        uint64_t now = now_ns();
        if (!begun && now >= begin_at) {
            begun = true;
            cpu_before = cpu_s();
            if (!load.count) puts("begin");
        }
        if (!over && now >= end_at) {
            over = true;
            cpu_used = cpu_s() - cpu_before;
            puts("end");
        }
        bool all = load.count ? seen.all_answered >= load.count : over && !in_flight;
        if (all || now >= given_up_at) break;
        uint64_t wake = load.count ? NEVER : !begun ? begin_at : !over ? end_at : given_up_at;
        if (load.rate) {
            while (!over && next <= now && (idle_len || fresh < load.connections)) {
                conn *c = &conns[idle_len ? idle[--idle_len] : fresh++];
                if (measured(next)) note(&behind, now - next);
                ask(c, next);
                next += (uint64_t)(-log(chance()) / load.rate * 1e9);
            }
            if (!over && next > now && next < wake) wake = next;
        } else {
            while (!over && fresh < load.connections && next <= now && (!load.count || seen.started < load.count)) {
                ask(&conns[fresh++], now);
                next += (uint64_t)(2 * chance() * load.ramp / load.connections * 1e9);
            }
            if (!over && fresh < load.connections && next > now && next < wake) wake = next;
        }
        now = now_ns();
        uint64_t left = wake > now ? wake - now : 0;
        struct timespec wait = {.tv_sec = (time_t)(left / NS_PER_S), .tv_nsec = (long)(left % NS_PER_S)};
        int found = (int)syscall(SYS_epoll_pwait2, poller, events, 512, wake == NEVER ? NULL : &wait, NULL, 0);
        if (found < 0 && errno != EINTR) fail("load: epoll_pwait2");
        for (int at = 0; at < found; at++) {
            conn *c = events[at].data.ptr;
            if (c->fd >= 0 && c->phase == SENDING && events[at].events & EPOLLOUT) send_rest(c);
            if (c->fd >= 0 && events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
    }
    if (load.count) {
        end_at = now_ns();
        cpu_used = cpu_s() - cpu_before;
    }
    seen.cut = (uint64_t)in_flight;
    tell(cpu_used);
    return 0;
}
