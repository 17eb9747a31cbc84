/* SPDX-License-Identifier: MIT */
/*
 * What in-tree plugins have in common. A plugin links to nothing of Drover's, so this is compiled
 * into each that includes it.
 */
#ifndef PLUGINS_COMMON_H
#define PLUGINS_COMMON_H

#include <stdint.h>

/* One sentence, for people. */
struct fault {
	char sentence[512];
};
/* Sets the sentence (of a fault that may be NULL) and returns error. */
__attribute__((format(printf, 3, 4))) int fault_set(struct fault *fault, int error,
						    const char *format, ...);

int64_t now_ms(void);            /* monotonic */
int64_t wall_ms(void);           /* since 1970 */
int64_t random_ms(int64_t most); /* 0 to most */

/*
 * The line in the file of a secret that is called `what`; free it with secret_free. On error the
 * fault's sentence names the file, never what is in it.
 */
int secret_read(const char *what, const char *file, char **ret_secret, struct fault *fault);
void secret_free(char *secret); /* overwritten before; NULL-safe */

#endif
