// A fixed upstream: any POST gets a chat completion of 1 KB, or 100 SSE chunks where the body has "stream": true.
// Usage: stub PORT. The prompt may say otherwise for its own request: [stub d=US c=US n=N] waits d microseconds before
// the answer and c microseconds between chunks, of which it sends n. GET /__count tells how many POSTs there were.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CONNECTIONS = 8192, BUFFER = 262144, TIMERS = 1 << 16, MOST_CHUNKS = 1000, CHUNKS = 100 };
typedef unsigned long long micros;

typedef struct {
    int fd;
    unsigned generation; // tells a timer that its connection is gone, or serves somebody else
    char *data;
    int size;
    int busy, streaming, close_after;
    int chunk, chunks;
    long delay;
} Connection;

typedef enum { ANSWER, STREAM, NEXT_CHUNK } Task;

typedef struct {
    micros at;
    int fd;
    unsigned generation;
    Task task;
} Timer;

static Connection connections[CONNECTIONS];
static Timer timers[TIMERS]; // a heap, the earliest first
static int timer_count, poll_fd;
static unsigned long long posts, streams, aborted;

static char answer[4096], stream_head[1024];
static int answer_size, stream_head_size;
static char chunks[MOST_CHUNKS][544], last_chunk[544];
static int chunk_sizes[MOST_CHUNKS], last_chunk_size;
static const char end_of_stream[] = "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n";

static void process(Connection *c);

static micros now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (micros)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void schedule(Timer timer) {
    int i = timer_count++;
    for (; i > 0 && timers[(i - 1) / 2].at > timer.at; i = (i - 1) / 2)
        timers[i] = timers[(i - 1) / 2];
    timers[i] = timer;
}

static Timer next_timer(void) {
    Timer first = timers[0], last = timers[--timer_count];
    int i = 0;
    for (;;) {
        int child = 2 * i + 1;
        if (child >= timer_count)
            break;
        if (child + 1 < timer_count && timers[child + 1].at < timers[child].at)
            child++;
        if (timers[child].at >= last.at)
            break;
        timers[i] = timers[child];
        i = child;
    }
    timers[i] = last;
    return first;
}

static void send_all(int fd, const char *data, int size) {
    for (int sent = 0; sent < size;) {
        int n = send(fd, data + sent, size - sent, MSG_NOSIGNAL);
        if (n >= 0)
            sent += n;
        else if (errno == EAGAIN)
            usleep(200);
        else
            return;
    }
}

static void close_connection(Connection *c) {
    if (c->streaming)
        aborted++;
    epoll_ctl(poll_fd, EPOLL_CTL_DEL, c->fd, 0);
    close(c->fd);
    c->generation++;
    c->fd = -1;
    c->size = c->busy = c->streaming = 0;
}

static void finish(Connection *c) {
    c->busy = c->streaming = 0;
    if (c->close_after)
        close_connection(c);
    else
        process(c);
}

static void send_chunks(Connection *c) {
    for (;;) {
        int i = c->chunk++;
        if (i < c->chunks - 1) {
            send_all(c->fd, chunks[i], chunk_sizes[i]);
        } else if (i == c->chunks - 1) {
            send_all(c->fd, last_chunk, last_chunk_size);
        } else {
            send_all(c->fd, end_of_stream, sizeof end_of_stream - 1);
            finish(c);
            return;
        }
        if (c->delay && i < c->chunks - 1) {
            schedule((Timer){now() + c->delay, c->fd, c->generation, NEXT_CHUNK});
            return;
        }
    }
}

static void respond(Connection *c, Task task) {
    if (task == STREAM) {
        streams++;
        c->streaming = 1;
        c->chunk = 0;
        send_all(c->fd, stream_head, stream_head_size);
        send_chunks(c);
    } else {
        send_all(c->fd, answer, answer_size);
        finish(c);
    }
}

static void respond_to_get(Connection *c, int count) {
    char body[256], out[512];
    int size;
    if (count)
        size = sprintf(body, "{\"posts\":%llu,\"streams\":%llu,\"aborted\":%llu}", posts, streams, aborted);
    else
        size = sprintf(body, "{\"object\":\"list\",\"data\":[{\"id\":\"gpt-4o-mini\",\"object\":\"model\","
                             "\"created\":1,\"owned_by\":\"stub\"}]}");
    int n = sprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", size, body);
    send_all(c->fd, out, n);
    finish(c);
}

// Bytes of the first request, 0 while it is not whole.
static long request_size(Connection *c, char *head_end) {
    long head = head_end - c->data + 4;
    *head_end = 0;
    char *length = strcasestr(c->data, "\r\ncontent-length:");
    int chunked = strcasestr(c->data, "\r\ntransfer-encoding: chunked") != 0;
    c->close_after = strcasestr(c->data, "\r\nconnection: close") != 0;
    *head_end = '\r';
    if (chunked) {
        char *end = memmem(c->data + head - 2, c->size - head + 2, "\r\n0\r\n\r\n", 7);
        return end ? end - c->data + 7 : 0;
    }
    long size = head + (length ? atol(length + 17) : 0);
    return c->size < size ? 0 : size;
}

static int wants_stream(const char *body, long size) {
    char *s = memmem(body, size, "\"stream\"", 8);
    if (!s)
        return 0;
    for (s += 8; *s == ' ' || *s == ':'; s++)
        ;
    return !memcmp(s, "true", 4);
}

static long read_wishes(Connection *c, const char *body, long size) {
    long wait = 0;
    c->delay = 0;
    c->chunks = CHUNKS;
    char *s = memmem(body, size, "[stub ", 6);
    for (s = s ? s + 6 : 0; s && *s && *s != ']'; s++) {
        if (s[1] != '=')
            continue;
        if (*s == 'd')
            wait = atol(s + 2);
        else if (*s == 'c')
            c->delay = atol(s + 2);
        else if (*s == 'n')
            c->chunks = atoi(s + 2) < MOST_CHUNKS ? atoi(s + 2) : MOST_CHUNKS;
    }
    return wait;
}

static void process(Connection *c) {
    if (c->busy || c->fd < 0 || c->size <= 0)
        return;
    c->data[c->size] = 0;
    char *head_end = memmem(c->data, c->size, "\r\n\r\n", 4);
    long size = head_end ? request_size(c, head_end) : 0;
    if (!size)
        return;
    int is_get = !memcmp(c->data, "GET ", 4), count = is_get && !memcmp(c->data + 4, "/__count", 8);
    const char *body = head_end + 4;
    long body_size = c->data + size - body;
    Task task = !is_get && wants_stream(body, body_size) ? STREAM : ANSWER;
    long wait = is_get ? 0 : read_wishes(c, body, body_size);
    memmove(c->data, c->data + size, c->size - size);
    c->size -= size;
    c->busy = 1;
    posts += !is_get;
    if (is_get)
        respond_to_get(c, count);
    else if (wait)
        schedule((Timer){now() + wait, c->fd, c->generation, task});
    else
        respond(c, task);
}

static void prepare(void) {
    char content[800] = "", body[2048];
    const char *words = "Caching a completion saves both money and time because the same question is answered from storage. ";
    while (strlen(content) + strlen(words) < 620)
        strcat(content, words);
    int size = sprintf(
        body,
        "{\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion\",\"created\":1760000000,"
        "\"model\":\"gpt-4o-mini\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"%s\","
        "\"refusal\":null},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":24,"
        "\"completion_tokens\":102,\"total_tokens\":126,\"prompt_tokens_details\":{\"cached_tokens\":0}},"
        "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\"}",
        content);
    answer_size = sprintf(
        answer,
        "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
        "Content-Length: %d\r\nopenai-processing-ms: 412\r\nopenai-version: 2020-10-01\r\n"
        "x-request-id: req_0123456789abcdef\r\nx-ratelimit-limit-requests: 10000\r\n"
        "x-ratelimit-remaining-requests: 9999\r\n\r\n%s",
        size, body);
    stream_head_size = sprintf(
        stream_head,
        "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
        "Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\nx-request-id: req_0123456789abcdef\r\n\r\n");
    for (int i = 0; i <= MOST_CHUNKS; i++) {
        int last = i == MOST_CHUNKS;
        char event[512];
        int n = sprintf(event,
                        "data: {\"id\":\"chatcmpl-AbCdEfGhIjKl\",\"object\":\"chat.completion.chunk\","
                        "\"created\":1760000000,\"model\":\"gpt-4o-mini\",\"system_fingerprint\":\"fp_01\","
                        "\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\" token%d\"},\"finish_reason\":%s}]}\n\n",
                        i == 0 ? "\"role\":\"assistant\"," : "", i, last ? "\"stop\"" : "null");
        int written = sprintf(last ? last_chunk : chunks[i], "%x\r\n%s\r\n", n, event);
        *(last ? &last_chunk_size : &chunk_sizes[i]) = written;
    }
}

static int listen_on(int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 2048)) {
        perror("stub");
        exit(1);
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    return fd;
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, 0, 0, SOCK_NONBLOCK)) >= 0) {
        if (fd >= CONNECTIONS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *c = &connections[fd];
        if (!c->data)
            c->data = malloc(BUFFER);
        c->fd = fd;
        c->generation++;
        c->size = c->busy = c->streaming = 0;
        struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void receive(Connection *c) {
    if (c->fd < 0)
        return;
    int n = recv(c->fd, c->data + c->size, BUFFER - 1 - c->size, 0);
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
        close_connection(c);
    } else if (n > 0) {
        c->size += n;
        process(c);
    }
}

static void run_timers(void) {
    micros time = now();
    while (timer_count && timers[0].at <= time) {
        Timer timer = next_timer();
        Connection *c = &connections[timer.fd];
        if (c->fd < 0 || c->generation != timer.generation)
            continue;
        if (timer.task == NEXT_CHUNK)
            send_chunks(c);
        else
            respond(c, timer.task);
    }
}

static int milliseconds_left(void) {
    if (!timer_count)
        return -1;
    micros time = now();
    return timers[0].at > time ? (int)((timers[0].at - time + 500) / 1000) : 0;
}

int main(int count, char **arguments) {
    if (count != 2) {
        fprintf(stderr, "usage: stub PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prepare();
    for (int i = 0; i < CONNECTIONS; i++)
        connections[i].fd = -1;
    poll_fd = epoll_create1(0);
    int listener = listen_on(atoi(arguments[1]));
    struct epoll_event events[256];
    for (;;) {
        int n = epoll_wait(poll_fd, events, 256, milliseconds_left());
        for (int i = 0; i < n; i++) {
            if (events[i].data.fd == listener)
                accept_all(listener);
            else
                receive(&connections[events[i].data.fd]);
        }
        run_timers();
    }
}
