/* SPDX-License-Identifier: MIT */
/*
 * One program that takes its events from the broker by itself and knows nothing of Drover: started
 * once, ended by SIGTERM to its process group. This process is its shadow: it ends when the program
 * does and with the same status, so that whoever counts workers counts programs. How long the program
 * may take to end is the dispatcher's to say, which sends SIGHUP when that time is over.
 */
#include "exec.h"

#include <signal.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int consumer_start(struct exec *exec, const struct drover_host *host)
{
	const struct program_files files = {-1, -1, -1, -1};
	int r;

	/* From now on a SIGTERM is the program's; and one that ends at once is seen to end, too. */
	program_busy(true);
	program_follow();
	r = program_start(exec->path, exec->argv, environ, &files, &exec->program);
	if (r < 0)
		host->log(host, DROVER_LOG_ERROR, "cannot run %s: %s", exec->path, strerror(-r));
	return r;
}

_Noreturn void consumer_stop(struct exec *exec)
{
	program_signal(&exec->program, SIGTERM);
	for (;;)
		pause(); /* until its end, which is ours */
}
