/* SPDX-License-Identifier: MIT */
/*
 * What a test and the broker plugin broker_memory.so say to each other, over a SEQPACKET socket
 * whose descriptor the plugin finds in its setting `control`.
 */
#ifndef TESTS_UNIT_BROKER_MEMORY_H
#define TESTS_UNIT_BROKER_MEMORY_H

#include <stdint.h>

enum memory_kind {
	/* from the test */
	MEMORY_DELIVER,       /* id, body, type, attempts so far, number: deliveries before */
	MEMORY_GENERATE,      /* number: of events with ids "g0", "g1", … and the given body */
	MEMORY_STATE,         /* number: enum drover_broker_state */
	MEMORY_REFUSE_SETTLE, /* number: what settle returns from now on, 0: it works again */
	MEMORY_FAIL_SETTLED,  /* number: the error that `settled` has from now on */
	MEMORY_FAIL_PUBLISH,  /* number: the error that `published` has from now on */
	MEMORY_QUIET,         /* number: not 0 switches the notes about settling off */
	MEMORY_FATTEN,        /* number: bytes of the bodies of generated events from now on */
	MEMORY_BLOCK,         /* number: not 0: retries and dead letters get -EAGAIN for now */
	MEMORY_HOLD,          /* number: not 0: settlements are not confirmed for now */
	MEMORY_AWAY, /* number: so many calls of `process` until it is UP again; now DOWN */
	/* from the plugin */
	MEMORY_DECLARED,
	MEMORY_SETTLED,   /* number: kind; attempts, delay_ms, id, reason */
	MEMORY_PUBLISHED, /* id, source in `reason`, type in `body`, traceparent in `type` */
	MEMORY_COUNT,     /* number: settled so far, with MEMORY_QUIET, when all generated are */
};

struct memory_packet {
	uint32_t kind;
	uint32_t attempts;
	int64_t number;
	int64_t delay_ms;
	char id[64];
	char type[64];
	char reason[320];
	char body[1024];
};

#endif
