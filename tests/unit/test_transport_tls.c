/* SPDX-License-Identifier: Apache-2.0 */
/* The grpc transport's credentials: what it starts with, whom it lets in, and whose
   identity it proves. */
#include "transport_kit.h"

#include <openssl/ssl.h>

#include "certificates.h"

#define DAY 86400

static const struct tiered_transport_ops *ops;
static struct certificate ca, other_ca, parent, child, stranger, elsewhere, expired;

static void set(const struct certificate *own, const struct certificate *trusted)
{
    kit_credentials =
        (struct tiered_credentials){.size = sizeof(kit_credentials),
                                    .certificate_pem = own ? own->pem : NULL,
                                    .key_pem = own ? own->key_pem : NULL,
                                    .ca_pem = trusted ? trusted->pem : NULL,
                                    .insecure = !own};
}

/* A server with `server`'s certificate, and a client with `client`'s that trusts
   `trusted`. */
static struct kit_pair *begin(const struct certificate *server,
                              const struct certificate *client,
                              const struct certificate *trusted)
{
    struct kit_pair *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    p->ops = ops;
    kit_tcp_address("grpc://", p->address, sizeof(p->address));
    set(server, &ca);
    p->server_state = kit_init(ops);
    set(client, trusted);
    p->client_state = kit_init(ops);
    kit_listen(p, KIT_ECHO);
    return p;
}

static void what_it_starts_with(void **state)
{
    (void)state;
    const struct {
        const char *certificate, *key, *ca, *text;
    } rows[] = {
        {NULL, NULL, NULL,
         "transport 'grpc' needs a certificate, its key and the CA's certificate; "
         "'insecure: true' allows plaintext"},
        {NULL, child.key_pem, ca.pem, "transport 'grpc' lacks a certificate"},
        {child.pem, NULL, ca.pem, "transport 'grpc' lacks the certificate's key"},
        {child.pem, child.key_pem, NULL, "transport 'grpc' lacks the CA's certificate"},
        {"x", child.key_pem, ca.pem, "the certificate: no start line"},
        {child.pem, "x", ca.pem, "the private key: unsupported"},
        {child.pem, child.key_pem, "", "the CA's certificate: no start line"},
        {child.pem, parent.key_pem, ca.pem,
         "the private key does not fit the certificate: key values mismatch"},
        {expired.pem, expired.key_pem, ca.pem, "the certificate: it has expired"},
    };
    for (size_t i = 0; i < TIERED_COUNT(rows); i++) {
        const struct tiered_credentials c = {.size = sizeof(c),
                                             .certificate_pem = rows[i].certificate,
                                             .key_pem = rows[i].key,
                                             .ca_pem = rows[i].ca};
        struct tiered_error err = {0};
        void *made;
        assert_int_equal(ops->init(&kit_host, kit_config.data, &c, &made, &err), -1);
        assert_string_equal(err.text, rows[i].text);
        assert_int_equal(err.code, TIERED_EINVAL);
    }
}

static void plaintext_is_warned_about(void **state)
{
    (void)state;
    READ(kit_log_text[0] = '\0');
    set(NULL, NULL);
    ops->destroy(kit_init(ops));
    assert_string_equal(
        kit_log_text, "grpc speaks plaintext, as 'insecure: true' says: anyone on the "
                      "network can read and change what it sends");
    READ(kit_log_text[0] = '\0');
    set(&child, &ca);
    ops->destroy(kit_init(ops));
    assert_string_equal(kit_log_text, "");
}

static void both_sides_know_who_the_other_is(void **state)
{
    (void)state;
    struct kit_pair *p = begin(&parent, &child, &ca);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    uint8_t bytes[3000];
    char who[64];
    struct tiered_error err = {0};
    kit_fill(bytes, 0, sizeof(bytes));
    kit_send(c, bytes, sizeof(bytes), NULL, 0, NULL);
    struct kit_end *s = kit_accepted(p, 0);
    assert_int_equal(ops->peer(s->stream, who, sizeof(who), &err), 0);
    assert_string_equal(who, "tiered://plant/agent-1");
    WAIT_FOR(c->n_messages == 1);
    assert_int_equal(ops->peer(c->stream, who, sizeof(who), &err), 0);
    assert_string_equal(who, "tiered://plant/cloud");
    assert_int_equal(ops->peer(s->stream, who, 22, &err), -1);
    assert_string_equal(err.text, "no room for the peer's identity of 22 bytes");
    assert_int_equal(ops->half_close(c->stream, NULL), 0);
    WAIT_FOR(c->closed && s->closed);
    assert_int_equal(c->end, TIERED_END_CLEAN);
    assert_int_equal(ops->peer(s->stream, who, sizeof(who), &err), 0);
    assert_string_equal(who, "tiered://plant/agent-1");
    kit_finish(p);
}

/* Whoever is not known to the CA gets nowhere. */
static void refused(const struct certificate *server, const struct certificate *client,
                    const struct certificate *trusted)
{
    struct kit_pair *p = begin(server, client, trusted);
    struct kit_end *c = kit_open(p, TIERED_SESSION, KIT_DROP);
    kit_send(c, "x", 1, NULL, 0, NULL);
    WAIT_FOR(c->closed);
    assert_int_equal(c->end, TIERED_END_BROKEN);
    assert_int_equal(c->err.code, TIERED_EIO);
    assert_int_equal(c->n_messages, 0);
    assert_int_equal(READ(p->server.n_ends), 0);
    kit_finish(p);
}

static void the_wrong_ones_are_refused(void **state)
{
    (void)state;
    refused(&parent, &stranger, &ca);    /* the child's is another CA's */
    refused(&parent, &child, &other_ca); /* the parent's is not of the CA it trusts */
    refused(&stranger, &child, &ca);     /* … or of none of ours */
    refused(&elsewhere, &child, &ca);    /* … or for another host */
    refused(&parent, NULL, NULL);        /* plaintext to TLS */
}

static void no_certificate_no_entry(void **state)
{
    (void)state;
    struct kit_pair *p = begin(&parent, &child, &ca);
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    const unsigned char http2[] = "\2h2";
    SSL_CTX_set_alpn_protos(context, http2, 3);
    BIO *bio = BIO_new_ssl_connect(context);
    BIO_set_conn_hostname(bio, p->address + strlen("grpc://"));
    char byte;
    BIO_do_connect(bio); /* TLS 1.3: the client is through before it is judged */
    assert_true(BIO_read(bio, &byte, 1) <= 0);
    assert_int_equal(READ(p->server.n_ends), 0);
    BIO_free_all(bio);
    SSL_CTX_free(context);
    kit_finish(p);
}

static void a_large_push_over_tls(void **state)
{
    enum { N = 32, MIB = 1 << 20 };
    (void)state;
    struct kit_pair *p = begin(&parent, &child, &ca);
    struct kit_end *c = kit_open(p, TIERED_PUSH, KIT_DROP);
    uint8_t *buffer = malloc((size_t)N * MIB);
    for (uint64_t i = 0; i < N; i++) {
        kit_fill(buffer + i * MIB, i, MIB);
        kit_send(c, buffer + i * MIB, 20, buffer + i * MIB + 20, MIB - 20, NULL);
    }
    WAIT_FOR(c->n_messages == N && c->done == N);
    kit_finish(p);
    free(buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_starts_with),
        cmocka_unit_test(plaintext_is_warned_about),
        cmocka_unit_test(both_sides_know_who_the_other_is),
        cmocka_unit_test(the_wrong_ones_are_refused),
        cmocka_unit_test(no_certificate_no_entry),
        cmocka_unit_test(a_large_push_over_tls),
    };
    struct certificate *all[] = {&ca,       &other_ca,  &parent, &child,
                                 &stranger, &elsewhere, &expired};
    ca = certificate_make(NULL, NULL, DAY);
    other_ca = certificate_make(NULL, NULL, DAY);
    parent = certificate_make(&ca, "URI:tiered://plant/cloud,IP:127.0.0.1", DAY);
    child = certificate_make(&ca, "URI:spiffe://x/y,URI:tiered://plant/agent-1", DAY);
    stranger =
        certificate_make(&other_ca, "URI:tiered://plant/agent-1,IP:127.0.0.1", DAY);
    elsewhere = certificate_make(&ca, "URI:tiered://plant/cloud,IP:127.0.0.2", DAY);
    expired = certificate_make(&ca, "URI:tiered://plant/agent-1", -60);
    ops = kit_plugin("grpc")->ops;
    int failed = cmocka_run_group_tests_name("transport_tls", tests, NULL, NULL);
    for (size_t i = 0; i < TIERED_COUNT(all); i++) {
        certificate_finish(all[i]);
    }
    tiered_config_finish(&kit_config);
    return failed;
}
