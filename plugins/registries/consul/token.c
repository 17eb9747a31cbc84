/* SPDX-License-Identifier: MIT */
/*
 * Which token is sent: the one of the environment, or the line in its file as it is now. Decides
 * when the file is read. A token is in no sentence, log or URL.
 */
#include <errno.h>
#include <string.h>

#include "http.h"

bool token_is_line(const char *text)
{
	for (; text && *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			return false;
	return true;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_ino == b->st_ino && a->st_dev == b->st_dev && a->st_size == b->st_size &&
	       a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

void token_look(struct consul *consul, bool anyway)
{
	struct http *http = consul->http;
	const char *file = consul->settings.token_file;
	struct stat stamp = {0};
	struct fault fault;
	char *token;

	if (file && stat(file, &stamp) == 0 && http->token_count && !anyway &&
	    same_file(&stamp, &http->token_stamp))
		return;
	if (!file && http->token_count)
		return;
	if (settings_token(&consul->settings, &token, &fault) < 0) {
		if (!http->token)
			http->token_fault = fault;
		return;
	}
	http->token_stamp = stamp;
	*http->token_fault.sentence = '\0';
	if (!token_is_line(token)) {
		secret_free(token);
		if (!http->token)
			fault_set(&http->token_fault, -EINVAL,
				  "the ACL token has a character in it that no token has");
		return;
	}
	if (http->token_count && token && http->token && !strcmp(token, http->token)) {
		secret_free(token);
		return;
	}
	http->token_changed = http->token_count > 0;
	http->token_count++;
	secret_free(http->token);
	http->token = token;
}
