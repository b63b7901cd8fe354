/* SPDX-License-Identifier: Apache-2.0 */
/* The physical limit beside which a round is measured: the same bytes over bare
   loopback TCP. N client processes each receive BYTES and send BYTES back, ROUNDS
   times; nothing is encoded, checked, stored or summed. Prints the seconds of each
   round. */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (1u << 20)

static size_t bytes;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void send_all(int fd, const char *buffer)
{
    for (size_t left = bytes; left > 0;) {
        ssize_t n = write(fd, buffer, left < CHUNK ? left : CHUNK);
        if (n <= 0) {
            die("write");
        }
        left -= (size_t)n;
    }
}

static void receive_all(int fd, char *buffer)
{
    for (size_t left = bytes; left > 0;) {
        ssize_t n = read(fd, buffer, left < CHUNK ? left : CHUNK);
        if (n <= 0) {
            die("read");
        }
        left -= (size_t)n;
    }
}

static char *buffer_of_chunk(void)
{
    char *buffer = malloc(CHUNK);
    if (!buffer) {
        die("malloc");
    }
    memset(buffer, 1, CHUNK);
    return buffer;
}

static void client(const struct sockaddr_in *address, int rounds)
{
    char *buffer = buffer_of_chunk();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
        die("connect");
    }
    for (int i = 0; i < rounds; i++) {
        receive_all(fd, buffer);
        send_all(fd, buffer);
    }
    _exit(0);
}

static void *serve(void *arg)
{
    char *buffer = buffer_of_chunk();
    int fd = *(int *)arg;
    send_all(fd, buffer);
    receive_all(fd, buffer);
    free(buffer);
    return NULL;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: tcp_round CLIENTS BYTES ROUNDS\n");
        return 2;
    }
    int n = atoi(argv[1]), rounds = atoi(argv[3]);
    bytes = strtoull(argv[2], NULL, 10);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int *fds = calloc((size_t)n, sizeof(*fds));
    pthread_t *threads = calloc((size_t)n, sizeof(*threads));
    if (!fds || !threads || bind(listener, (struct sockaddr *)&address, size) < 0 ||
        getsockname(listener, (struct sockaddr *)&address, &size) < 0 ||
        listen(listener, n) < 0) {
        die("listen");
    }
    for (int i = 0; i < n; i++) {
        if (fork() == 0) {
            client(&address, rounds);
        }
    }
    for (int i = 0; i < n; i++) {
        fds[i] = accept(listener, NULL, NULL);
    }
    for (int r = 0; r < rounds; r++) {
        double began = now();
        for (int i = 0; i < n; i++) {
            pthread_create(&threads[i], NULL, serve, &fds[i]);
        }
        for (int i = 0; i < n; i++) {
            pthread_join(threads[i], NULL);
        }
        printf("%.4f\n", now() - began);
    }
    while (wait(NULL) > 0) {
    }
    free(fds);
    free(threads);
    return 0;
}
