/* The mock engine: OpenAI chat completions over HTTP/1.1, from one thread, cheap enough never to be the bottleneck.
 *
 * What an answer is like stands in the prompt, because that passes every gateway unchanged: `rate=50 tokens=64` gives
 * 64 tokens, 50 a second. The first token comes with the answer's head; the others at intervals of their own, each 20 %
 * shorter or longer by chance, so that tokens of different streams come at unrelated moments. Each token is a write of
 * its own, as with a real engine, and says its number and when it was sent: "~3:1f00ab~", nanoseconds of CLOCK_MONOTONIC
 * in hexadecimal. An unstreamed answer is whole at once, and its text ends with "~whole~".
 *
 *     engine [PORT]      prints the port it listens on; 0 or none takes a free one
 *
 * GET /bench/stats tells, and begins anew, what was served since it was asked last, and how late tokens were.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ull
#define NOT_DUE (-1)
#define BODY_MAX (64u << 20)

typedef struct conn {
    int fd;
    char *in;
    size_t in_len, in_cap;
    char *out;
    size_t out_len, out_off, out_cap;
    bool wants_write, closes, gone;
    bool streaming, tells_usage;
    unsigned id;
    int tokens, sent;
    double interval_ns;
    uint64_t due;
    int heap_at;
    struct conn *next_gone;
} conn;

static int poller;
static conn **heap;
static int heap_len, heap_cap;
static conn *gone_list;
static uint64_t random_state = 88172645463325252ull;

static struct {
    uint64_t requests, streams, tokens, cut, late_1ms, late_sum_ns, late_max_ns;
    int open;
} stats;

static void *grown(void *memory, size_t size) {
    void *more = realloc(memory, size);
    if (!more) {
        perror("realloc");
        exit(1);
    }
    return more;
}

static uint64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (uint64_t)at.tv_sec * NS_PER_S + (uint64_t)at.tv_nsec;
}

static double chance(void) { /* xorshift64: in [0, 1) */
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

/* The heap of streams by when their next token is due. */

static void place(conn *c, int at) {
    heap[at] = c;
    c->heap_at = at;
}

static void sift(int at) {
    conn *c = heap[at];
    while (at > 0 && heap[(at - 1) / 2]->due > c->due) {
        place(heap[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    for (;;) {
        int child = 2 * at + 1;
        if (child >= heap_len) break;
        if (child + 1 < heap_len && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        place(heap[child], at);
        at = child;
    }
    place(c, at);
}

static void schedule(conn *c, uint64_t due) {
    c->due = due;
    if (c->heap_at == NOT_DUE) {
        if (heap_len == heap_cap) heap = grown(heap, sizeof *heap * (size_t)(heap_cap = heap_cap ? 2 * heap_cap : 64));
        place(c, heap_len++);
    }
    sift(c->heap_at);
}

static void unschedule(conn *c) {
    if (c->heap_at == NOT_DUE) return;
    conn *last = heap[--heap_len];
    if (last != c) {
        place(last, c->heap_at);
        sift(last->heap_at);
    }
    c->heap_at = NOT_DUE;
}

/* Connections. */

static void watch(conn *c, int operation) {
    struct epoll_event event = {.events = EPOLLIN | (c->wants_write ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, operation, c->fd, &event);
}

static void hang_up(conn *c) {
    if (c->gone) return;
    stats.cut += c->streaming;
    stats.open--;
    unschedule(c);
    close(c->fd);
    c->gone = true; /* freed after the events of this turn: one of them may be its own */
    c->next_gone = gone_list;
    gone_list = c;
}

static void flush_out(conn *c) {
    while (c->out_off < c->out_len) {
        ssize_t wrote = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
        if (wrote < 0) {
            if (errno != EAGAIN && errno != EINTR) {
                hang_up(c);
                return;
            }
            if (errno == EINTR) continue;
            if (!c->wants_write) {
                c->wants_write = true;
                watch(c, EPOLL_CTL_MOD);
            }
            return;
        }
        c->out_off += (size_t)wrote;
    }
    c->out_off = c->out_len = 0;
    if (c->wants_write) {
        c->wants_write = false;
        watch(c, EPOLL_CTL_MOD);
    }
    if (c->closes && !c->streaming) hang_up(c);
}

static void put(conn *c, const char *bytes, size_t length) {
    if (c->out_len + length > c->out_cap) c->out = grown(c->out, c->out_cap = 2 * (c->out_len + length));
    memcpy(c->out + c->out_len, bytes, length);
    c->out_len += length;
}

static void put_text(conn *c, const char *text) { put(c, text, strlen(text)); }

static void put_answer(conn *c, const char *status, const char *body) {
    char head[256];
    int length = snprintf(head, sizeof head, "HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %zu\r\n%s\r\n",
                          status, strlen(body), c->closes ? "connection: close\r\n" : "");
    put(c, head, (size_t)length);
    put_text(c, body);
}

static void put_chunk(conn *c, const char *text, int length) {
    char size[16];
    put(c, size, (size_t)snprintf(size, sizeof size, "%x\r\n", (unsigned)length));
    put(c, text, (size_t)length);
    put_text(c, "\r\n");
}

static void put_token(conn *c, uint64_t now) {
    char event[512];
    bool last = c->sent == c->tokens - 1;
    int length = snprintf(event, sizeof event,
                          "data: {\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                          "\"model\":\"bench\",\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\" ~%d:%llx~\"},"
                          "\"logprobs\":null,\"finish_reason\":%s}]}\n\n",
                          c->id, c->sent ? "" : "\"role\":\"assistant\",", c->sent, (unsigned long long)now,
                          last ? "\"length\"" : "null");
    put_chunk(c, event, length);
    c->sent++;
    stats.tokens++;
    if (!last) return;
    if (c->tells_usage) {
        length = snprintf(event, sizeof event,
                          "data: {\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,"
                          "\"model\":\"bench\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":%d,"
                          "\"total_tokens\":%d}}\n\n",
                          c->id, c->tokens, c->tokens + 10);
        put_chunk(c, event, length);
    }
    put_chunk(c, "data: [DONE]\n\n", 14);
    put_text(c, "0\r\n\r\n");
    c->streaming = false;
}

static void serve_requests(conn *c);

static void say_token(conn *c, uint64_t now) {
    put_token(c, now);
    if (c->streaming) {
        schedule(c, c->due + (uint64_t)(c->interval_ns * (0.8 + 0.4 * chance())));
        flush_out(c);
    } else {
        unschedule(c);
        flush_out(c);
        if (!c->gone) serve_requests(c);
    }
}

/* Requests. */

static double number_after(const char *body, size_t length, const char *name, double otherwise) {
    const char *at = memmem(body, length, name, strlen(name));
    return at ? strtod(at + strlen(name), NULL) : otherwise; /* the byte behind the body is 0 */
}

static bool has(const char *bytes, size_t length, const char *text) { return memmem(bytes, length, text, strlen(text)); }

static void generate(conn *c, const char *body, size_t length) {
    static unsigned ids;
    stats.requests++;
    c->id = ++ids;
    if (!has(body, length, "\"stream\":true") && !has(body, length, "\"stream\": true")) {
        char answer[1024];
        snprintf(answer, sizeof answer,
                 "{\"id\":\"chatcmpl-%08x\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"bench\","
                 "\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"The sky is blue because air "
                 "scatters short waves of light more than long ones; at sunset the way through the air is longer, and what "
                 "is left of the light is red. ~whole~\"},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
                 "\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":32,\"total_tokens\":42}}",
                 c->id);
        put_answer(c, "200 OK", answer);
        return;
    }
    uint64_t now = now_ns();
    stats.streams++;
    c->tokens = (int)number_after(body, length, "tokens=", 64);
    c->sent = 0;
    c->interval_ns = 1e9 / number_after(body, length, "rate=", 50);
    c->tells_usage = has(body, length, "\"include_usage\":true") || has(body, length, "\"include_usage\": true");
    c->streaming = true;
    put_text(c, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
                "transfer-encoding: chunked\r\n");
    put_text(c, c->closes ? "connection: close\r\n\r\n" : "\r\n");
    put_token(c, now);
    if (c->streaming) schedule(c, now + (uint64_t)(c->interval_ns * (0.5 + chance())));
}

static void tell_stats(conn *c) {
    char body[512];
    double mean_us = stats.tokens ? (double)stats.late_sum_ns / (double)stats.tokens / 1000 : 0;
    snprintf(body, sizeof body,
             "{\"requests\":%llu,\"streams\":%llu,\"tokens\":%llu,\"cut\":%llu,\"open\":%d,\"late_mean_us\":%.1f,"
             "\"late_max_us\":%.1f,\"late_1ms\":%llu}",
             (unsigned long long)stats.requests, (unsigned long long)stats.streams, (unsigned long long)stats.tokens,
             (unsigned long long)stats.cut, stats.open, mean_us, (double)stats.late_max_ns / 1000,
             (unsigned long long)stats.late_1ms);
    put_answer(c, "200 OK", body);
    int open = stats.open;
    memset(&stats, 0, sizeof stats);
    stats.open = open;
}

static void answer(conn *c, const char *head, const char *body, size_t length) {
    const char *path = strchr(head, ' '), *line_end = strchr(head, '\r');
    if (!path++ || path > line_end || !memmem(path, (size_t)(line_end - path), " HTTP/1.", 8)) {
        c->closes = true; /* somebody tries whether it is a gRPC server */
        put_answer(c, "400 Bad Request", "{}");
    } else if (!strncmp(path, "/bench/stats", 12)) {
        tell_stats(c);
    } else if (!strncmp(head, "POST ", 5) && memmem(path, (size_t)(line_end - path), "/completions ", 13)) {
        generate(c, body, length);
    } else if (!strncmp(path, "/v1/models", 10) || !strncmp(path, "/models", 7)) {
        put_answer(c, "200 OK",
                   "{\"object\":\"list\",\"data\":[{\"id\":\"bench\",\"object\":\"model\",\"created\":1700000000,"
                   "\"owned_by\":\"vllm\",\"max_model_len\":131072}]}");
    } else { /* health checks, what routers ask of vLLM and SGLang, a collector of traces */
        put_answer(c, "200 OK", "{\"status\":\"ok\",\"model_path\":\"bench\",\"is_generation\":true}");
    }
}

/* The body of a request, put in place of its chunks: its length, or -1 while it is not all there. Sets what it took. */
static ssize_t unchunked(char *from, size_t length, size_t *took) {
    size_t at = 0, to = 0;
    char *probe = from; /* first see whether it is whole, for then it is changed */
    for (int writing = 0; writing < 2; writing++) {
        at = to = 0;
        for (;;) {
            char *line = memmem(probe + at, length - at, "\r\n", 2);
            if (!line) return -1;
            size_t size = strtoul(probe + at, NULL, 16), data = (size_t)(line - probe) + 2;
            if (data + size + 2 > length) return -1;
            if (writing) memmove(from + to, from + data, size);
            to += size;
            at = data + size + 2;
            if (!size) break;
        }
    }
    *took = at;
    return (ssize_t)to;
}

static void serve_requests(conn *c) {
    while (!c->streaming && !c->gone && !c->closes) {
        char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
        if (!end) break;
        size_t head = (size_t)(end - c->in) + 4, took = 0;
        char behind_head = c->in[head - 1];
        c->in[head - 1] = 0;
        char *stated = strcasestr(c->in, "\ncontent-length:");
        bool chunked = strcasestr(c->in, "\ntransfer-encoding: chunked");
        bool closes = strcasestr(c->in, "\nconnection: close");
        ssize_t body = stated ? atol(stated + 16) : 0;
        c->in[head - 1] = behind_head;
        if (chunked)
            body = unchunked(c->in + head, c->in_len - head, &took);
        else
            took = (size_t)body;
        if (body < 0 || head + took > c->in_len) break;
        char behind_body = c->in[head + (size_t)body];
        c->in[head + (size_t)body] = 0;
        c->closes = closes;
        answer(c, c->in, c->in + head, (size_t)body);
        if (!chunked) c->in[head + (size_t)body] = behind_body;
        c->in_len -= head + took;
        memmove(c->in, c->in + head + took, c->in_len);
        flush_out(c);
    }
}

static void receive(conn *c) {
    for (;;) {
        if (c->in_cap - c->in_len < 4096) c->in = grown(c->in, (c->in_cap = c->in_cap ? 2 * c->in_cap : 8192) + 1);
        size_t room = c->in_cap - c->in_len;
        ssize_t got = recv(c->fd, c->in + c->in_len, room, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR)) break;
        if (got <= 0 || c->in_cap > BODY_MAX) {
            hang_up(c);
            return;
        }
        c->in_len += (size_t)got;
        c->in[c->in_len] = 0;
        if ((size_t)got < room) break;
    }
    if (c->in_len) serve_requests(c);
}

static void take_all(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) return;
        int on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        conn *c = calloc(1, sizeof *c);
        if (!c) return;
        c->fd = fd;
        c->heap_at = NOT_DUE;
        stats.open++;
        watch(c, EPOLL_CTL_ADD);
    }
}

static void say_what_is_due(void) {
    for (;;) {
        uint64_t now = now_ns();
        if (!heap_len || heap[0]->due > now) return;
        uint64_t late = now - heap[0]->due;
        stats.late_sum_ns += late;
        stats.late_1ms += late > 1000000;
        if (late > stats.late_max_ns) stats.late_max_ns = late;
        say_token(heap[0], now);
    }
}

int main(int count, char **arguments) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons((uint16_t)(count > 1 ? atoi(arguments[1]) : 0));
    socklen_t size = sizeof address;
    int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096)) {
        perror("engine: bind");
        return 1;
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_TIMERSLACK, 1ul);
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct timespec wait = {0}, *patience = NULL; /* epoll_wait's milliseconds would put tokens in step */
        if (heap_len) {
            uint64_t now = now_ns(), left = heap[0]->due > now ? heap[0]->due - now : 0;
            wait.tv_sec = (time_t)(left / NS_PER_S);
            wait.tv_nsec = (long)(left % NS_PER_S);
            patience = &wait;
        }
        int found = (int)syscall(SYS_epoll_pwait2, poller, events, 256, patience, NULL, 0);
        if (found < 0 && errno != EINTR) {
            perror("engine: epoll_pwait2");
            return 1;
        }
        for (int i = 0; i < found; i++) {
            conn *c = events[i].data.ptr;
            if (!c) {
                take_all(listener);
                continue;
            }
            if (!c->gone && events[i].events & EPOLLOUT) flush_out(c);
            if (!c->gone && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) receive(c);
        }
        say_what_is_due();
        while (gone_list) {
            conn *c = gone_list;
            gone_list = c->next_gone;
            free(c->in);
            free(c->out);
            free(c);
        }
    }
}
