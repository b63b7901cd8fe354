/* SPDX-License-Identifier: Apache-2.0 */
/* Who we are and whom we trust, and who the peer is. gRPC takes any text for a
   certificate and fails later, without a reason: here they are read first. */
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "inside.h"

#define IDENTITY "tiered://"

static int fail_openssl(const char *what, struct tiered_error *err)
{
    unsigned long code = ERR_peek_last_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    tiered_fail(err, TIERED_EINVAL, "%s: %s", what, reason ? reason : "not valid");
    ERR_clear_error();
    return -1;
}

/* Without it OpenSSL would ask for the passphrase on the terminal. */
static int no_passphrase(char *out, int size, int writing, void *opaque)
{
    (void)out;
    (void)size;
    (void)writing;
    (void)opaque;
    return -1;
}

static X509 *read_certificate(const char *pem, const char *what,
                              struct tiered_error *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *certificate = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    if (!certificate) {
        fail_openssl(what, err);
    } else if (X509_cmp_current_time(X509_get0_notAfter(certificate)) < 0) {
        tiered_fail(err, TIERED_EINVAL, "%s: it has expired", what);
        X509_free(certificate);
        certificate = NULL;
    }
    return certificate;
}

static int check_key(X509 *certificate, const char *pem, struct tiered_error *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key =
        bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    int result = 0;
    BIO_free(bio);
    if (!key) {
        result = fail_openssl("the private key", err);
    } else if (X509_check_private_key(certificate, key) != 1) {
        result = fail_openssl("the private key does not fit the certificate", err);
    }
    EVP_PKEY_free(key);
    return result;
}

static int check_pems(const struct tiered_credentials *c, struct tiered_error *err)
{
    X509 *ca = read_certificate(c->ca_pem, "the CA's certificate", err);
    X509 *own =
        ca ? read_certificate(c->certificate_pem, "the certificate", err) : NULL;
    int result = own ? check_key(own, c->key_pem, err) : -1;
    X509_free(own);
    X509_free(ca);
    return result;
}

static int load_plaintext(struct state *st, const struct tiered_credentials *c,
                          struct tiered_error *err)
{
    if (c->insecure != 1) {
        return tiered_fail(err, TIERED_EINVAL,
                           "transport 'grpc' needs a certificate, its key and the CA's "
                           "certificate; 'insecure: true' allows plaintext");
    }
    st->plaintext = true;
    st->channel_credentials = grpc_insecure_credentials_create();
    st->server_credentials = grpc_insecure_server_credentials_create();
    return 0;
}

int credentials_load(struct state *st, const struct tiered_credentials *c,
                     struct tiered_error *err)
{
    int given =
        (c->certificate_pem != NULL) + (c->key_pem != NULL) + (c->ca_pem != NULL);
    if (given == 0) {
        return load_plaintext(st, c, err);
    }
    if (given < 3) {
        return tiered_fail(err, TIERED_EINVAL, "transport 'grpc' lacks %s",
                           !c->certificate_pem ? "a certificate"
                           : !c->key_pem       ? "the certificate's key"
                                               : "the CA's certificate");
    }
    if (check_pems(c, err) < 0) {
        return -1;
    }
    grpc_ssl_pem_key_cert_pair pair = {c->key_pem, c->certificate_pem};
    st->channel_credentials =
        grpc_ssl_credentials_create_ex(c->ca_pem, &pair, NULL, NULL);
    st->server_credentials = grpc_ssl_server_credentials_create_ex(
        c->ca_pem, &pair, 1, GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY,
        NULL);
    return 0;
}

void credentials_finish(struct state *st)
{
    grpc_channel_credentials_release(st->channel_credentials);
    grpc_server_credentials_release(st->server_credentials);
}

/* A URI that is cut off, or that a zero byte ends early, would be another identity. */
static bool is_identity(const grpc_auth_property *p)
{
    return p->value_length < PEER_SIZE && strlen(p->value) == p->value_length &&
           strncmp(p->value, IDENTITY, strlen(IDENTITY)) == 0;
}

void read_peer(grpc_call *call, char out[PEER_SIZE])
{
    grpc_auth_context *context = grpc_call_auth_context(call);
    out[0] = '\0';
    if (!context) {
        return;
    }
    grpc_auth_property_iterator it =
        grpc_auth_context_find_properties_by_name(context, GRPC_PEER_URI_PROPERTY_NAME);
    const grpc_auth_property *p = grpc_auth_property_iterator_next(&it);
    while (p && !is_identity(p)) {
        p = grpc_auth_property_iterator_next(&it);
    }
    if (p) {
        memcpy(out, p->value, p->value_length + 1);
    }
    grpc_auth_context_release(context);
}
