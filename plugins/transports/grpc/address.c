/* SPDX-License-Identifier: Apache-2.0 */
/* The grpc transport's addresses: host and port, and whether one can listen there. */
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <unistd.h>

#include "inside.h"

#define SCHEME "grpc://"

static int fail_form(const char *address, struct tiered_error *err)
{
    return tiered_fail(err, TIERED_EINVAL,
                       "address '%.100s' is not of the form HOST:PORT", address);
}

static int parse_port(const char *address, const char *text, uint16_t *ret,
                      struct tiered_error *err)
{
    size_t n = strspn(text, "0123456789");
    if (n == 0 || text[n]) {
        return fail_form(address, err);
    }
    long port = n > 5 ? 0 : strtol(text, NULL, 10);
    if (port < 1 || port > UINT16_MAX) {
        return tiered_fail(err, TIERED_EINVAL,
                           "address '%.100s': a port is a number in 1..65535", address);
    }
    *ret = (uint16_t)port;
    return 0;
}

int place_parse(const char *address, struct place *ret, struct tiered_error *err)
{
    static const char name_chars[] = "abcdefghijklmnopqrstuvwxyz"
                                     "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_";
    const char *text = address;
    struct place place = {0};
    if (strncmp(text, SCHEME, strlen(SCHEME)) == 0) {
        text += strlen(SCHEME);
    }
    bool v6 = text[0] == '[';
    text += v6;
    size_t n = strspn(text, v6 ? "0123456789abcdefABCDEF:." : name_chars);
    const char *end = text + n;
    if (n >= HOST_SIZE || (v6 && (n == 0 || *end++ != ']')) || *end != ':') {
        return fail_form(address, err);
    }
    memcpy(place.host, text, n);
    if (parse_port(address, end + 1, &place.port, err) < 0) {
        return -1;
    }
    *ret = place;
    return 0;
}

bool place_equal(const struct place *a, const struct place *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

void place_target(const struct place *place, char target[TARGET_SIZE])
{
    bool v6 = strchr(place->host, ':');
    snprintf(target, TARGET_SIZE, TARGET_SCHEME "%s%s%s:%u", v6 ? "[" : "", place->host,
             v6 ? "]" : "", place->port);
}

/* Bind and listen, as gRPC will, and let go again: 0, or an errno. */
static int try_listen(const struct addrinfo *info)
{
    int on = 1, cause = 0;
    int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        (info->ai_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
        bind(fd, info->ai_addr, info->ai_addrlen) < 0 || listen(fd, 1) < 0) {
        cause = errno;
    }
    close(fd);
    return cause;
}

static struct addrinfo *resolve(const struct place *place, struct tiered_error *err)
{
    const struct addrinfo hints = {.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
                                   .ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM};
    struct addrinfo *list = NULL;
    char port[8];
    snprintf(port, sizeof(port), "%u", place->port);
    int rc = getaddrinfo(place->host[0] ? place->host : NULL, port, &hints, &list);
    if (rc != 0) {
        tiered_fail(err, TIERED_EIO, "cannot listen on '%.100s:%u': %s", place->host,
                    place->port, rc == EAI_SYSTEM ? strerror(errno) : gai_strerror(rc));
        return NULL;
    }
    return list;
}

static bool add_numeric(const struct addrinfo *info, uint16_t port, struct place *ret)
{
    ret->port = port;
    return getnameinfo(info->ai_addr, info->ai_addrlen, ret->host, sizeof(ret->host),
                       NULL, 0, NI_NUMERICHOST) == 0;
}

int place_listen(const struct place *place, struct place ret[], size_t capacity,
                 size_t *ret_n, struct tiered_error *err)
{
    struct addrinfo *list = resolve(place, err);
    size_t n = 0;
    int cause = EADDRNOTAVAIL;
    if (!list) {
        return -1;
    }
    for (struct addrinfo *i = list; i && n < capacity; i = i->ai_next) {
        int failed = try_listen(i);
        if (failed == EADDRINUSE) {
            n = 0;
            cause = failed;
            break;
        }
        cause = failed ? failed : cause;
        if (!failed) { /* the host may have a name for a family that it lacks */
            n += add_numeric(i, place->port, &ret[n]);
        }
    }
    freeaddrinfo(list);
    if (n == 0) {
        return tiered_fail(err, TIERED_EIO, "cannot listen on '%.100s:%u': %s",
                           place->host, place->port, strerror(cause));
    }
    if (!place->host[0]) { /* gRPC listens on every family there */
        ret[0] = (struct place){.host = "::", .port = place->port};
        n = 1;
    }
    *ret_n = n;
    return 0;
}
