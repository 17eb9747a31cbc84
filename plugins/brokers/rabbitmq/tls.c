/* SPDX-License-Identifier: MIT */
/*
 * Whom to believe, with TLS. librabbitmq makes the connection, but it knows no authorities by
 * itself, no addresses in certificates, and keeps no reason of a refusal; so OpenSSL is told here
 * what to check, and what is wrong with a certificate is said in words, with the setting that it is
 * about. Bytes are read here as well, for the library would check frames only after it believed
 * them. Called by open.c and link.c.
 */
#include "rabbitmq.h"

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/ssl_socket.h>
#else
#include <amqp_ssl_socket.h>
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

/* The library has made for its first connection what serves all, until it is released. */
static bool library_used;

static const char *reason(void)
{
	const char *text = ERR_reason_error_string(ERR_peek_last_error());

	return text ? text : "no reason is known";
}

/* A key with a passphrase would be asked for on a terminal. */
static int no_passphrase(char *text, int size, int writing, void *context)
{
	(void)text;
	(void)size;
	(void)writing;
	(void)context;
	return -1;
}

static int read_files(SSL_CTX *context, const struct settings *settings, struct fault *fault)
{
	SSL_CTX_set_default_passwd_cb(context, no_passphrase);
	if (!settings->ca_file)
		SSL_CTX_set_default_verify_paths(context);
	else if (SSL_CTX_load_verify_locations(context, settings->ca_file, NULL) != 1)
		return fault_set(fault, -EINVAL,
				 "ca_file = \"%.80s\": no certificates can be read from it: %s",
				 settings->ca_file, reason());
	if (!settings->cert_file)
		return 0;
	if (SSL_CTX_use_certificate_chain_file(context, settings->cert_file) != 1)
		return fault_set(fault, -EINVAL,
				 "cert_file = \"%.80s\": no certificate can be read from it: %s",
				 settings->cert_file, reason());
	if (SSL_CTX_use_PrivateKey_file(context, settings->key_file, SSL_FILETYPE_PEM) != 1)
		return fault_set(fault, -EINVAL,
				 "key_file = \"%.80s\": no key without a passphrase that fits "
				 "cert_file can be read from it: %s",
				 settings->key_file, reason());
	return 0;
}

static bool is_address(const char *host)
{
	unsigned char bytes[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, bytes) == 1 || inet_pton(AF_INET6, host, bytes) == 1;
}

/* The library connects to an address; the peer is to know by which name it was meant. */
static void on_info(const SSL *ssl, int where, int result)
{
	struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	(void)result;
	if (where != SSL_CB_HANDSHAKE_START || tls->ssl)
		return;
	memcpy(&tls->ssl, &ssl, sizeof ssl); /* ours to use, if not the callback's */
	if (!is_address(tls->host))
		SSL_set_tlsext_host_name(tls->ssl, tls->host);
}

/* The names that a certificate is for, as many as fit. */
static void list_names(X509 *certificate, char *names, size_t size)
{
	GENERAL_NAMES *list = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	size_t n = 0;

	*names = '\0';
	for (int i = 0; i < sk_GENERAL_NAME_num(list) && n < size - 1; i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(list, i);

		if (name->type == GEN_DNS)
			n += (size_t)snprintf(names + n, size - n, "%s%.*s", n ? ", " : "",
					      ASN1_STRING_length(name->d.dNSName),
					      (const char *)ASN1_STRING_get0_data(name->d.dNSName));
	}
	GENERAL_NAMES_free(list);
	for (; *names; names++)
		*names = *names >= ' ' && *names < 0x7f ? *names : '?';
}

/* Changes nothing; but once the handshake has failed, nobody knows any more why. */
static int on_verified(int good, X509_STORE_CTX *store)
{
	const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
	struct tls *tls = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

	if (!good && tls->distrust == X509_V_OK) {
		tls->distrust = X509_STORE_CTX_get_error(store);
		list_names(X509_STORE_CTX_get_current_cert(store), tls->names, sizeof tls->names);
	}
	return good;
}

int tls_prepare(struct tls *tls, void *library_context, char *host, const struct settings *settings,
		struct fault *fault)
{
	SSL_CTX *context = library_context;
	X509_VERIFY_PARAM *param = SSL_CTX_get0_param(context);
	int r;

	library_used = true;
	ERR_clear_error();
	*tls = (struct tls){.host = host, .distrust = X509_V_OK};
	r = read_files(context, settings, fault);
	if (r < 0)
		return r;
	SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
	SSL_CTX_set_app_data(context, tls);
	SSL_CTX_set_info_callback(context, on_info);
	if (!settings->verify) {
		SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
		return 0;
	}
	SSL_CTX_set_verify(context, SSL_VERIFY_PEER, on_verified);
	X509_VERIFY_PARAM_set_hostflags(param, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
	r = is_address(host) ? X509_VERIFY_PARAM_set1_ip_asc(param, host)
			     : X509_VERIFY_PARAM_set1_host(param, host, 0);
	return r == 1 ? 0 : fault_set(fault, -ENOMEM, "no memory for TLS");
}

static void say_distrust(const struct tls *tls, const struct settings *settings,
			 struct fault *fault)
{
	const char *known = settings->ca_file ? settings->ca_file : "this system";

	switch (tls->distrust) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		fault_set(fault, 0, "its certificate has expired, if the clock here is right");
		return;
	case X509_V_ERR_CERT_NOT_YET_VALID:
		fault_set(fault, 0, "its certificate is not valid yet, if the clock here is right");
		return;
	case X509_V_ERR_HOSTNAME_MISMATCH:
	case X509_V_ERR_IP_ADDRESS_MISMATCH:
		fault_set(fault, 0, "its certificate is for %s, not for %.60s as in `hosts`",
			  *tls->names ? tls->names : "others", tls->host);
		return;
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
		fault_set(fault, 0,
			  "its certificate is self-signed, not signed by an authority that %.80s "
			  "knows (ca_file)",
			  known);
		return;
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
		fault_set(fault, 0,
			  "its certificate is signed by an authority that %.80s does not know "
			  "(ca_file)",
			  known);
		return;
	default:
		fault_set(fault, 0, "its certificate cannot be trusted: %s",
			  X509_verify_cert_error_string(tls->distrust));
	}
}

bool tls_refused(const struct tls *tls, const struct settings *settings, struct fault *fault)
{
	unsigned long error = ERR_peek_last_error();
	int code = ERR_GET_LIB(error) == ERR_LIB_SSL ? ERR_GET_REASON(error) : 0;

	if (settings->verify && tls->distrust != X509_V_OK) {
		say_distrust(tls, settings, fault);
		return true;
	}
	/* Its end was reached: it goes away, or did not want us and does not say so. */
	if (!code || code == SSL_R_UNEXPECTED_EOF_WHILE_READING)
		return false;
	if (code == SSL_R_WRONG_VERSION_NUMBER)
		fault_set(fault, 0, "it speaks no TLS at that port; RabbitMQ does at 5671 (port)");
	else
		fault_set(fault, 0, "no TLS with it: %s", reason());
	return true;
}

ssize_t tls_read(struct tls *tls, void *data, size_t size)
{
	int n;

	ERR_clear_error();
	errno = 0;
	n = SSL_read(tls->ssl, data, size < INT_MAX ? (int)size : INT_MAX);
	if (n > 0)
		return n;
	switch (SSL_get_error(tls->ssl, n)) {
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return -EAGAIN;
	case SSL_ERROR_ZERO_RETURN:
		return 0;
	case SSL_ERROR_SYSCALL:
		return errno ? -errno : 0;
	default:
		return ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING
			       ? 0
			       : -EPROTO;
	}
}

ssize_t tls_write(struct tls *tls, const void *data, size_t size)
{
	size_t total = 0;

	/* The library's way is a record at a time. */
	while (total < size) {
		int n;

		ERR_clear_error();
		n = SSL_write(tls->ssl, (const char *)data + total, (int)(size - total));
		if (n <= 0)
			return -EIO;
		total += (size_t)n;
	}
	return (ssize_t)total;
}

const char *tls_reason(void)
{
	return reason();
}

void tls_release(void)
{
	/* It declines while there are connections, and aborts when there never was one. */
	if (library_used && amqp_uninitialize_ssl_library() == AMQP_STATUS_OK)
		library_used = false;
}
