/* SPDX-License-Identifier: Apache-2.0 */
/* The other process of the tests in which one dies or freezes: the test program itself,
   called with "--peer NAME OPTIONS ADDRESS", which listens there and echoes. */
#ifndef TIERED_TEST_TRANSPORT_PEER_H
#define TIERED_TEST_TRANSPORT_PEER_H

#include "transport_kit.h"

#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

struct peer {
    pid_t pid;
    int ready; /* it writes a byte here once it listens */
};

/** Start it; it listens when this returns. `options` is JSON, "" for the defaults. */
static inline struct peer peer_spawn(const char *name, const char *options,
                                     const char *address)
{
    extern char **environ;
    char self[] = "/proc/self/exe", flag[] = "--peer";
    char *argv[] = {self,
                    flag,
                    (char *)(uintptr_t)name,
                    (char *)(uintptr_t)options,
                    (char *)(uintptr_t)address,
                    NULL};
    struct peer peer;
    int fds[2];
    char byte;
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe(fds), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fds[1], STDOUT_FILENO);
    posix_spawn_file_actions_addclose(&actions, fds[0]);
    assert_int_equal(posix_spawn(&peer.pid, self, &actions, NULL, argv, environ), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
    peer.ready = fds[0];
    struct pollfd poll_fd = {.fd = fds[0], .events = POLLIN};
    assert_int_equal(poll(&poll_fd, 1, KIT_WAIT_SECONDS * 1000), 1);
    assert_int_equal(read(fds[0], &byte, 1), 1);
    return peer;
}

static inline void peer_end(struct peer *peer)
{
    kill(peer->pid, SIGKILL);
    waitpid(peer->pid, NULL, 0);
    close(peer->ready);
}

static inline bool peer_wanted(int argc, char **argv)
{
    return argc == 5 && strcmp(argv[1], "--peer") == 0;
}

static inline int peer_run(char **argv)
{
    const struct tiered_plugin *plugin = kit_plugin(argv[2]);
    const struct tiered_transport_ops *ops = plugin->ops;
    static struct kit_server server;
    server.ops = ops;
    server.mode = KIT_ECHO;
    kit_configure(plugin, argv[3]);
    void *state = kit_init(ops);
    if (ops->listen(state, argv[4], &kit_listener, &server, NULL) < 0 ||
        write(STDOUT_FILENO, "r", 1) != 1) {
        return 1;
    }
    for (;;) {
        pause(); /* until the test kills this process */
    }
}

#endif
