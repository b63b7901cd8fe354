/* SPDX-License-Identifier: Apache-2.0 */
/* What is the unix transport's own: its bytes, its socket files, its limits. A peer
   made by hand says what no Tiered would. */
#include "transport_kit.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const struct tiered_transport_ops *ops;
static char folder[] = "/tmp/tiered-unix-XXXXXX";

static struct kit_pair *begin(enum kit_mode mode)
{
    static unsigned n;
    struct kit_pair *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    p->ops = ops;
    snprintf(p->address, sizeof(p->address), "unix:%s/%u.sock", folder, n++);
    p->server_state = kit_init(ops);
    p->client_state = kit_init(ops);
    if (mode != KIT_REFUSE) {
        kit_listen(p, mode);
    }
    return p;
}

static const char *path_of(const struct kit_pair *p)
{
    return p->address + strlen("unix:");
}

static struct sockaddr_un address_of(const struct kit_pair *p)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", path_of(p));
    return a;
}

static int raw_connect(const struct kit_pair *p)
{
    struct sockaddr_un a = address_of(p);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

static void raw_send(int fd, const char *bytes, size_t n)
{
    assert_int_equal(send(fd, bytes, n, MSG_NOSIGNAL), n);
}

/* Blocks until the other side has closed; true if it sent nothing before. */
static bool raw_closed(int fd)
{
    char byte;
    return recv(fd, &byte, 1, 0) <= 0;
}

static void strangers_are_turned_away(void **state)
{
    (void)state;
    static const char *const rows[] = {"GET / HTTP/1.1\r\n\r\n", "TRD1\2\1\0\0",
                                       "TRD1\1\0\0\0", "TRD1\1\4\0\0", "TRD2\1\1\0\0"};
    struct kit_pair *p = begin(KIT_ECHO);
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        int fd = raw_connect(p);
        raw_send(fd, rows[i], i == 0 ? strlen(rows[0]) : 8);
        assert_true(raw_closed(fd));
        close(fd);
    }
    close(raw_connect(p)); /* says nothing at all */
    int half = raw_connect(p);
    raw_send(half, "TRD1", 4);
    close(half);
    assert_int_equal(READ(p->server.n_ends), 0);
    kit_finish(p);
}

/* Row by row: what a peer sends and what the reader says of it. */
static void broken_streams_say_why(void **state)
{
    (void)state;
#define ROW(bytes, text)                                                               \
    {                                                                                  \
        bytes, sizeof(bytes) - 1, text                                                 \
    }
    static const struct {
        const char *bytes;
        size_t size;
        const char *text;
    } rows[] = {
        ROW("\1\0\x11\0", "the peer announced a message of 1114113 bytes; at most "
                          "1114112 are taken"),
        ROW("\xff\xff\xff\xff", "the peer announced a message of 4294967295 bytes; at "
                                "most 1114112 are taken"),
        ROW("\5\0\0\0abc", "the peer closed the connection within a message"),
        ROW("\5\0", "the peer closed the connection within a message"),
        ROW("", "the peer closed the connection"),
        ROW("\0\0\0\0x", "the peer sent more after its end"),
        ROW("\0\0\0\0", "the peer closed the connection"),
    };
    struct kit_pair *p = begin(KIT_DROP);
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        int fd = raw_connect(p);
        raw_send(fd, "TRD1\1\2\0\0", 8);
        raw_send(fd, rows[i].bytes, rows[i].size);
        shutdown(fd, SHUT_WR);
        struct kit_end *s = kit_accepted(p, i);
        WAIT_FOR(s->closed);
        assert_int_equal(s->end, TIERED_END_BROKEN);
        assert_string_equal(s->err.text, rows[i].text);
        close(fd);
    }
    kit_finish(p);
}

/* Byte by byte is the same stream. */
static void bytes_in_any_portions(void **state)
{
    (void)state;
    static const char bytes[] = "TRD1\1\1\0\0\3\0\0\0\0\0\0\2\0\0\0\1\0\0\0\0\0";
    struct kit_pair *p = begin(KIT_DROP);
    int fd = raw_connect(p);
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        raw_send(fd, bytes + i, 1);
        if (i == 8) {
            kit_accepted(p, 0);
        }
    }
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(s->half_closed == 1);
    assert_int_equal(READ(s->n_messages), 2);
    assert_int_equal(READ(s->n_bytes), 5);
    assert_int_equal(ops->half_close(s->stream, NULL), 0);
    WAIT_FOR(s->closed);
    assert_int_equal(s->end, TIERED_END_CLEAN);
    char mark[5];
    assert_int_equal(recv(fd, mark, sizeof(mark), MSG_WAITALL), 4);
    assert_memory_equal(mark, "\0\0\0\0", 4);
    close(fd);
    kit_finish(p);
}

/* A peer that says why and hangs up is heard although it can no longer be written to.
 */
static void last_words_are_heard(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_DROP);
    int fd = raw_connect(p);
    raw_send(fd, "TRD1\1\2\0\0", 8);
    struct kit_end *s = kit_accepted(p, 0);
    READ(s->mode = KIT_KEEP);
    for (char i = 0; i < 6; i++) { /* more than the window */
        char message[] = {1, 0, 0, 0, i};
        raw_send(fd, message, sizeof(message));
    }
    WAIT_FOR(s->n_held == TIERED_STREAM_WINDOW);
    close(fd);
    uint8_t byte = 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kit_send(s, &byte, 1, NULL, 0, NULL), 0);
    }
    WAIT_FOR(s->done == 3);
    assert_int_equal(READ(s->closed), 0);
    kit_set_mode(s, KIT_DROP);
    WAIT_FOR(s->closed);
    assert_int_equal(s->n_messages, 6);
    assert_int_equal(s->end, TIERED_END_BROKEN);
    kit_finish(p);
}

static void expect_listen(struct kit_pair *p, void *st, const char *address,
                          const char *text)
{
    struct tiered_error err = {0};
    assert_int_equal(ops->listen(st, address, &kit_listener, &p->server, &err), -1);
    assert_string_equal(err.text, text);
}

static void socket_files(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_REFUSE);
    struct sockaddr_un a = address_of(p);
    struct stat info;
    char text[400];
    /* left behind by a process that died */
    int stale = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(stale, (struct sockaddr *)&a, sizeof(a)), 0);
    close(stale);
    kit_listen(p, KIT_ECHO);
    assert_int_equal(stat(path_of(p), &info), 0);
    assert_true(S_ISSOCK(info.st_mode));
    assert_int_equal(info.st_mode & 0777, 0600);
    snprintf(text, sizeof(text), "cannot listen on '%s': another process does",
             p->address);
    expect_listen(p, p->client_state, p->address, text);
    uint8_t bytes[9];
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_send(c, bytes, kit_fill(bytes, 0, sizeof(bytes)), NULL, 0, NULL);
    WAIT_FOR(c->n_messages == 1); /* the probe did no harm */
    kit_stop_server(p);
    assert_int_equal(stat(path_of(p), &info), -1);
    /* a file that is not ours to remove */
    int fd = open(path_of(p), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    close(fd);
    snprintf(text, sizeof(text), "cannot listen on '%s': the file is not a socket",
             p->address);
    expect_listen(p, p->client_state, p->address, text);
    assert_int_equal(unlink(path_of(p)), 0);
    kit_finish(p);
}

static void addresses(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_REFUSE);
    struct tiered_error err = {0};
    struct tiered_stream *s;
    char address[400] = "unix:/";
    memset(address + 6, 'a', 107);
    assert_int_equal(
        ops->open(p->client_state, address, TIERED_PUSH, &kit_handler, p, &s, &err),
        -1);
    assert_int_equal(err.code, TIERED_EINVAL);
    assert_non_null(strstr(err.text, "its path has 108 bytes, and a unix socket's at "
                                     "most 107; use a shorter folder"));
    expect_listen(p, p->server_state,
                  "unix:", "address 'unix:' is not of the form unix:/path/to.sock");
    expect_listen(p, p->server_state, "host:7400",
                  "address 'host:7400' is not of the form unix:/path/to.sock");
    expect_listen(p, p->server_state, "unix:/nonexistent/x.sock",
                  "cannot listen on 'unix:/nonexistent/x.sock': No such file or "
                  "directory");
    snprintf(address, sizeof(address),
             "cannot connect to '%s': No such file or "
             "directory",
             p->address);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    WAIT_FOR(c->closed);
    assert_string_equal(c->err.text, address);
    kit_finish(p);
}

/* A full backlog delays, and does not fail. */
static void a_full_backlog(void **state)
{
    (void)state;
    enum { N = 8 };
    struct kit_pair *p = begin(KIT_REFUSE);
    struct sockaddr_un a = address_of(p);
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(listener, 0), 0);
    for (int i = 0; i < N; i++) {
        kit_open(p, TIERED_SESSION, KIT_DROP);
    }
    for (int i = 0; i < N; i++) {
        char preamble[8];
        int fd = accept(listener, NULL, NULL);
        assert_true(fd >= 0);
        assert_int_equal(recv(fd, preamble, 8, MSG_WAITALL), 8);
        assert_memory_equal(preamble, "TRD1\1\1\0\0", 8);
        close(fd);
    }
    for (int i = 0; i < N; i++) {
        struct kit_end *c = p->clients[i];
        WAIT_FOR(c->closed);
    }
    close(listener);
    unlink(path_of(p));
    kit_finish(p);
}

/* Out of descriptors: a warning, and the connection is accepted once there are some. */
static void out_of_descriptors(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_ECHO);
    struct rlimit old, low;
    int taken[64], n = 0;
    uint8_t bytes[9];
    struct kit_end *first = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_accepted(p, 0);
    unsigned logged = READ(kit_log_count);
    getrlimit(RLIMIT_NOFILE, &old);
    low = old;
    low.rlim_cur = 64;
    setrlimit(RLIMIT_NOFILE, &low);
    while (n < 64 && (taken[n] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0) {
        n++;
    }
    assert_true(n > 0 && n < 64);
    close(taken[--n]); /* one is left, for the opening side */
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_send(c, bytes, kit_fill(bytes, 0, sizeof(bytes)), NULL, 0, NULL);
    WAIT_FOR(kit_log_count > logged);
    assert_non_null(
        strstr(kit_log_text, "Too many open files; trying again in 200 ms"));
    setrlimit(RLIMIT_NOFILE, &old);
    WAIT_FOR(c->n_messages == 1);
    assert_int_equal(READ(first->closed), 0);
    while (n > 0) {
        close(taken[--n]);
    }
    kit_finish(p);
}

static void a_message_may_outlive_the_transport(void **state)
{
    (void)state;
    struct kit_pair *p = begin(KIT_KEEP);
    uint8_t bytes[9];
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    kit_send(c, bytes, kit_fill(bytes, 0, sizeof(bytes)), NULL, 0, NULL);
    struct kit_end *s = kit_accepted(p, 0);
    WAIT_FOR(s->n_held == 1);
    kit_finish(p); /* destroys, then lets go */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strangers_are_turned_away),
        cmocka_unit_test(broken_streams_say_why),
        cmocka_unit_test(bytes_in_any_portions),
        cmocka_unit_test(last_words_are_heard),
        cmocka_unit_test(socket_files),
        cmocka_unit_test(addresses),
        cmocka_unit_test(a_full_backlog),
        cmocka_unit_test(out_of_descriptors),
        cmocka_unit_test(a_message_may_outlive_the_transport),
    };
    ops = kit_plugin("unix")->ops;
    kit_allow_descriptors();
    if (!mkdtemp(folder)) {
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    return failed + (rmdir(folder) < 0);
}
