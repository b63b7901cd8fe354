/* SPDX-License-Identifier: Apache-2.0 */
/* Certificates for tests: a CA and what it signs, as PEM texts. */
#ifndef TIERED_TEST_CERTIFICATES_H
#define TIERED_TEST_CERTIFICATES_H

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

struct certificate {
    EVP_PKEY *key;
    X509 *x509;
    char *pem, *key_pem;
};

static inline char *certificate_text(BIO *bio)
{
    char *data;
    long n = BIO_get_mem_data(bio, &data);
    char *text = strndup(data, (size_t)n);
    BIO_free(bio);
    assert_non_null(text);
    return text;
}

static inline void certificate_extend(X509 *x509, X509 *issuer, int nid,
                                      const char *value)
{
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, x509, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(e);
    X509_add_ext(x509, e, -1);
    X509_EXTENSION_free(e);
}

/** `ca` NULL: it is one. `names`: "URI:tiered://plant/a,IP:127.0.0.1"; NULL: none. It
   is valid until `seconds` from now. */
static inline struct certificate certificate_make(const struct certificate *ca,
                                                  const char *names, long seconds)
{
    static long serial;
    struct certificate c = {.key = EVP_EC_gen("P-256"), .x509 = X509_new()};
    X509_set_version(c.x509, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(c.x509), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(c.x509), -3600);
    X509_gmtime_adj(X509_getm_notAfter(c.x509), seconds);
    X509_set_pubkey(c.x509, c.key);
    char common_name[32];
    snprintf(common_name, sizeof(common_name), "test %ld", serial);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(c.x509), "CN", MBSTRING_ASC,
                               (const unsigned char *)common_name, -1, -1, 0);
    X509 *issuer = ca ? ca->x509 : c.x509;
    X509_set_issuer_name(c.x509, X509_get_subject_name(issuer));
    certificate_extend(c.x509, issuer, NID_basic_constraints,
                       ca ? "CA:FALSE" : "critical,CA:TRUE");
    if (names) {
        certificate_extend(c.x509, issuer, NID_subject_alt_name, names);
    }
    assert_true(X509_sign(c.x509, ca ? ca->key : c.key, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509(bio, c.x509);
    PEM_write_bio_PrivateKey(key_bio, c.key, NULL, NULL, 0, NULL, NULL);
    c.pem = certificate_text(bio);
    c.key_pem = certificate_text(key_bio);
    return c;
}

static inline void certificate_finish(struct certificate *c)
{
    X509_free(c->x509);
    EVP_PKEY_free(c->key);
    free(c->pem);
    free(c->key_pem);
}

#endif
