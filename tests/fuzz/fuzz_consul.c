/* SPDX-License-Identifier: MIT */
/*
 * What a Consul agent answers: any bytes, to any question. What is read of it must be whole: texts
 * end, versions are numbers, sessions are what goes into a URL.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../plugins/registries/consul/answers.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void want(bool true_of_it)
{
	if (!true_of_it)
		abort();
}

static void read_values(const char *body, size_t size)
{
	struct answer_holder holder;
	struct answer_value *values;
	size_t n;

	if (answers_values(body, size, &values, &n) < 0)
		return;
	for (size_t i = 0; i < n; i++) {
		char *text = answers_encode(values[i].data, values[i].length);

		want(text && strlen(text) == (values[i].length + 2) / 3 * 4);
		want(*values[i].version &&
		     strspn(values[i].version, "0123456789") == strlen(values[i].version));
		want(!i || strcmp(values[i - 1].key, values[i].key) <= 0);
		if (answers_holder(values[i].data, values[i].length, &holder))
			want(*holder.node && *holder.node_id);
		free(text);
	}
	answers_values_free(values, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *body = (const char *)data;
	struct answer_session session;
	struct answer_holder holder;
	struct answer_txn txn;

	read_values(body, size);
	answers_holder(body, size, &holder);
	if (answers_session(body, size, &session) == 0)
		want(*session.id &&
		     session.id[strspn(session.id, "0123456789abcdefABCDEF-")] == 0 &&
		     session.ttl_ms >= -1);
	if (answers_txn(body, size, &txn) == 0)
		want(strspn(txn.version, "0123456789") == strlen(txn.version) && txn.failed < 128);
	return 0;
}
