/* SPDX-License-Identifier: MIT */
/*
 * Whether our registration may be, and is what the servers have: decides when identity.c is asked, and
 * what its answer means. A node whose name or id is another live one's is not registered; what is
 * registered is verified some seconds later, for two may begin together, and again when we may have been
 * taken for dead. Asks by register.c, which has one thing on its way at a time.
 */
#include "registration.h"

/* So many answers in a row are no accident: we are refused. */
#define STRANGER_MAX 2  /* the servers know our host as another one */
#define UNSEEN_MAX   6  /* they do not know us, who have just registered: 35 s at least */
#define LATE_MAX     60 /* they do not, and knew us: five minutes */

/* By chance, lest two that began together ask together. */
int64_t admit_verify_at_ms(int64_t now)
{
	return now + VERIFY_MS + random_ms(2 * VERIFY_MS);
}

/*
 * The servers may be about to hear of it: an agent tries again within 30 s what they refused, and tells
 * those that lost their data within a minute, or some in a large cluster.
 */
static void unseen(struct consul *consul, enum identity identity, const char *sentence)
{
	struct registration *registration = consul->registration;
	unsigned most = identity == IDENTITY_STRANGER ? STRANGER_MAX
			: registration->late          ? LATE_MAX
						      : UNSEEN_MAX;
	bool over = ++registration->unseen > most;

	registration->verify_ms = now_ms() + (over ? REFUSED_MS : VERIFY_MS);
	if (over)
		state_refuse(consul, REFUSAL_CATALOG, sentence);
}

static void on_identity(struct consul *consul, enum identity identity, const char *sentence)
{
	struct registration *registration = consul->registration;
	int64_t now = now_ms();

	registration->question = NULL;
	registration->verify_ms = NEVER;
	if (identity != IDENTITY_UNSEEN && identity != IDENTITY_STRANGER)
		registration->unseen = 0;
	switch (identity) {
	case IDENTITY_OURS:
		state_refuse(consul, REFUSAL_CATALOG, NULL);
		registration->late = false;
		registration->urgent = registration->urgent || !registration->admitted;
		registration->whole = registration->whole || !registration->admitted;
		registration->admitted = true;
		registration->admitted_ms = now;
		return;
	case IDENTITY_UNSEEN:
	case IDENTITY_STRANGER:
		unseen(consul, identity, sentence);
		return;
	case IDENTITY_UNKNOWN:
	case IDENTITY_DENIED:
		if (registration->admitted)
			registration->verify_ms = now + VERIFY_MS;
		else
			registration->retry_ms =
				now + (identity == IDENTITY_DENIED ? REFUSED_MS : RETRY_MS);
		if (identity == IDENTITY_DENIED)
			state_refuse(consul, REFUSAL_REGISTER, sentence);
		return;
	case IDENTITY_TAKEN:
	case IDENTITY_TAKEN_HERE:
		break;
	}
	state_refuse(consul, REFUSAL_NAME, sentence);
	registration->retry_ms = now + REFUSED_MS;
	registration->late = false;
	beat_run(consul, false);
	beat_forget(consul);
	registration->admitted = false;
	if (registration->placed && identity == IDENTITY_TAKEN)
		register_withdraw(consul);
	registration->placed = registration->sent = false;
}

void admit_ask(struct consul *consul)
{
	struct registration *registration = consul->registration;
	enum standing standing = !registration->admitted ? STANDING_NEW
				 : registration->late    ? STANDING_LATE
							 : STANDING_THERE;

	if (identity_ask(consul, standing, on_identity, &registration->question) < 0)
		registration->retry_ms = now_ms() + RETRY_MS;
}

void admit_late(struct consul *consul)
{
	struct registration *registration = consul->registration;

	if (registration->late || !registration->admitted)
		return;
	registration->late = true;
	registration->verify_ms = admit_verify_at_ms(now_ms());
}
