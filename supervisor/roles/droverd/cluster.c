/* SPDX-License-Identifier: MIT */
/*
 * Who leads the cluster, and since when nobody does: whether this node leads, follows, waits or
 * sizes its workers by itself. Decides that, who samples, and in which order the parts of a round
 * come; who the other nodes are is peers.c's, what is planned planning.c's. An unreachable registry
 * changes nothing about the workers (G5).
 */
#include "roles/droverd/cluster.h"

#include <errno.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/units.h"
#include "system/timer.h"

#include "base/banned.h"

#define TICK_MS     1000  /* a round at least so often, for what nothing else wakes */
#define KNOWN_MS    3000  /* a registry that is up again has told what is news by then */
#define REST_MS     10000 /* from leading while it was refused until it stands for election again */
#define ACCURACY_US 20000 /* of the timer: rounds that are nearly due together are one */

static bool is_led(const struct cluster *cluster)
{
	return cluster->state == DROVER_REGISTRY_UP && (cluster->leading || *cluster->leader);
}

/*
 * What this node sized by itself gives way to a newer plan, or to the one in force if the node that
 * wrote it leads, for nobody else has led meanwhile then. Who led before the registry was away is
 * taken for who leads when it has had the time to say otherwise.
 */
static bool is_planned_again(const struct cluster *cluster)
{
	const struct plan *plan = &cluster->plan;

	if (plan->epoch != cluster->autonomous.epoch)
		return plan->epoch > cluster->autonomous.epoch;
	return plan->seq > cluster->autonomous.seq ||
	       (clock_now_ms() - cluster->up_ms >= KNOWN_MS && plan->leader &&
		!strcmp(plan->leader, cluster->leader_id));
}

static enum standing stand(const struct cluster *cluster, int64_t autonomy_ms)
{
	if (!cluster->clustered)
		return STANDING_ALONE;
	/* Whoever is refused would size what others have in hand already. */
	if (cluster->state == DROVER_REGISTRY_REFUSED)
		return STANDING_WAITING;
	if (cluster->leading)
		return STANDING_LEADS;
	if (cluster->standing == STANDING_AUTONOMOUS)
		return is_led(cluster) && is_planned_again(cluster) ? STANDING_FOLLOWS
								    : STANDING_AUTONOMOUS;
	if (!cluster->unled_ms)
		return STANDING_FOLLOWS;
	return clock_now_ms() - cluster->unled_ms >= autonomy_ms ? STANDING_AUTONOMOUS
								 : STANDING_WAITING;
}

static void tell_standing(const struct supervisor *supervisor, enum standing before)
{
	const struct cluster *cluster = supervisor->cluster;
	char human[UNITS_TEXT_MAX];

	if (cluster->standing == STANDING_AUTONOMOUS)
		log_change(
			KIND_AUTONOMOUS, NULL,
			"nobody has led the cluster for %s; this node sizes its workers by itself, "
			"never below the plan in force, until a node leads again and has planned",
			units_human_duration(supervisor->config->autonomy_after_ms, human,
					     sizeof human));
	else if (before == STANDING_AUTONOMOUS && cluster->standing == STANDING_FOLLOWS)
		log_change(KIND_AUTONOMY_OVER, NULL,
			   "node %s leads the cluster and has planned; its plan holds here again",
			   cluster->leader);
}

/* The leader samples for all who follow; who has nobody to follow keeps an eye open for its clock. */
static void set_gauges(struct supervisor *supervisor)
{
	enum standing standing = supervisor->cluster->standing;

	for (struct broker *broker = supervisor->brokers; broker; broker = broker->next)
		broker_sleep(broker, broker->scope == DROVER_SCOPE_CLUSTER &&
					     (standing == STANDING_FOLLOWS ||
					      standing == STANDING_WAITING));
}

static void send_bare(struct supervisor *supervisor, const char *verb)
{
	struct message message = {0};

	message_start(&message, verb);
	registry_send(supervisor, &message);
}

/*
 * Others need not wait for the end of a session to lead: not when this node stops, and not when the
 * registry refuses it, for then it may not see, or say, what a leader has to. What it is refused may
 * be what leaders alone do, so that leading would end as soon as it began: hence the rest.
 */
static void stand_for_election(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;
	bool refused = cluster->state == DROVER_REGISTRY_REFUSED && cluster->leading,
	     back = cluster->state == DROVER_REGISTRY_UP && clock_now_ms() >= cluster->rest_ms;

	if (cluster->candidate && (supervisor->stopping || refused)) {
		cluster->candidate = false;
		cluster->rest_ms = clock_now_ms() + REST_MS;
		send_bare(supervisor, "resign");
	} else if (!cluster->candidate && !supervisor->stopping && back) {
		cluster->candidate = true;
		send_bare(supervisor, "elect");
	}
}

static void take_standing(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;
	enum standing before = cluster->standing;

	if (cluster->clustered)
		stand_for_election(supervisor);
	/* Who stops has handed over, and sizes nothing any more. */
	if (is_led(cluster) || !cluster->clustered || supervisor->stopping)
		cluster->unled_ms = 0;
	else if (!cluster->unled_ms)
		cluster->unled_ms = clock_now_ms();
	cluster->standing = stand(cluster, supervisor->config->autonomy_after_ms);
	if (cluster->standing == STANDING_WAITING && cluster->unled_ms)
		cluster_wake(supervisor, cluster->unled_ms + supervisor->config->autonomy_after_ms);
	if (cluster->standing == before)
		return;
	if (cluster->standing == STANDING_AUTONOMOUS)
		cluster->autonomous = (struct plan_stamp){cluster->plan.epoch, cluster->plan.seq};
	tell_standing(supervisor, before);
	decide_soon(supervisor);
}

/* Who leads. */

static void tell_leader(const struct supervisor *supervisor, bool led)
{
	const struct cluster *cluster = supervisor->cluster;
	char human[UNITS_TEXT_MAX];

	if (cluster->leading)
		log_change(KIND_LEADS, NULL,
			   "this node leads the cluster: it samples and plans for all nodes");
	else if (*cluster->leader)
		log_change(KIND_FOLLOWS, NULL,
			   "node %s leads the cluster%s; this node follows its plan",
			   cluster->leader, led ? ", this one no more" : "");
	else
		log_change(
			KIND_LEADERLESS, NULL,
			"%s; the plan in force stands, and if nobody leads for %s, this node sizes "
			"its workers by itself",
			led ? "this node leads the cluster no more"
			    : "nobody leads the cluster just now",
			units_human_duration(supervisor->config->autonomy_after_ms, human,
					     sizeof human));
}

void cluster_leader(struct supervisor *supervisor, bool leading, const char *node,
		    const char *node_id)
{
	struct cluster *cluster = supervisor->cluster;
	bool led = cluster->leading;

	if (!cluster->clustered || (leading == led && !strcmp(node_id, cluster->leader_id) &&
				    !strcmp(node, cluster->leader)))
		return;
	cluster->leading = leading;
	snprintf(cluster->leader, sizeof cluster->leader, "%s", node);
	snprintf(cluster->leader_id, sizeof cluster->leader_id, "%s", node_id);
	if (!supervisor_ends(supervisor))
		tell_leader(supervisor, led);
	if (leading != led)
		cluster->peers_seeded = false;
	if (led && !leading)
		survey_end(supervisor);
	take_standing(supervisor);
	decide_soon(supervisor);
}

/* How the registry is. */

static void tell_state(const struct cluster *cluster)
{
	const char *sentence = cluster->sentence, *colon = *sentence ? ": " : "";

	switch (cluster->state) {
	case DROVER_REGISTRY_UP:
		log_change(KIND_REGISTRY_UP, NULL, "registry: up%s%s", colon, sentence);
		break;
	case DROVER_REGISTRY_SUSPENDED:
		log_change(KIND_REGISTRY_SUSPENDED, NULL,
			   "registry: suspended%s%s; the plan in force stands, workers stay, "
			   "and it is tried again",
			   colon, sentence);
		break;
	case DROVER_REGISTRY_LOST:
		log_change(KIND_REGISTRY_LOST, NULL,
			   "registry: the session is lost%s%s; the plan in force stands, workers "
			   "stay, and a new one is asked for",
			   colon, sentence);
		break;
	case DROVER_REGISTRY_REFUSED:
		log_change(
			KIND_REGISTRY_REFUSES, NULL,
			"registry: it refuses this node%s%s; until somebody mends that, the node "
			"does not lead, and %s; it is tried again",
			colon, sentence,
			cluster->plan_ms ? "works by the plan in force"
					 : "takes nothing of the cluster's work, for it has "
					   "heard of no plan since it started");
		break;
	}
}

/* As status shows it. */
static void show_state(struct supervisor *supervisor, enum drover_registry_state state,
		       const char *sentence)
{
	static const char *const names[] = {
		[DROVER_REGISTRY_UP] = "UP",
		[DROVER_REGISTRY_SUSPENDED] = "SUSPENDED",
		[DROVER_REGISTRY_LOST] = "LOST",
		[DROVER_REGISTRY_REFUSED] = "REFUSED",
	};

	supervisor->cluster->state = state;
	snprintf(supervisor->cluster->sentence, sizeof supervisor->cluster->sentence, "%s",
		 sentence);
	snprintf(supervisor->registry_state, sizeof supervisor->registry_state, "%s", names[state]);
	snprintf(supervisor->registry_sentence, sizeof supervisor->registry_sentence, "%s",
		 sentence);
}

void cluster_state(struct supervisor *supervisor, enum drover_registry_state state,
		   const char *sentence)
{
	struct cluster *cluster = supervisor->cluster;
	bool other = state != cluster->state,
	     reason = state != DROVER_REGISTRY_UP && strcmp(sentence, cluster->sentence) != 0;

	if (other)
		cluster->up_ms = clock_now_ms();
	show_state(supervisor, state, sentence);
	/* That there is none is no news. */
	if (!cluster->clustered)
		return;
	if (other || (reason && state == DROVER_REGISTRY_REFUSED))
		tell_state(cluster);
	if (other && state == DROVER_REGISTRY_UP)
		saying_again(supervisor);
	take_standing(supervisor);
	decide_soon(supervisor);
}

void cluster_registrar_started(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster->clustered)
		return;
	cluster->candidate = !supervisor->stopping;
	if (cluster->candidate)
		send_bare(supervisor, "elect");
	peers_registrar_started(supervisor);
	saying_again(supervisor);
	checks_registrar_started(supervisor);
	discover_registrar_started(supervisor);
	decide_soon(supervisor);
}

void cluster_registrar_ended(struct supervisor *supervisor, const char *sentence)
{
	show_state(supervisor, DROVER_REGISTRY_SUSPENDED, sentence);
	/* Nobody tells us any more when another may lead. */
	if (supervisor->cluster->leading)
		cluster_leader(supervisor, false, "", "");
	take_standing(supervisor);
}

/* Rounds. */

bool cluster_covers(const struct type *type)
{
	/* Until its gauge has said what the broker is, nothing is known of its depths either. */
	return type->supervisor->cluster && type->supervisor->cluster->clustered &&
	       (!type->broker || type->broker->scope != DROVER_SCOPE_HOST);
}

static int on_wake(sd_event_source *source, uint64_t usec, void *context)
{
	struct supervisor *supervisor = context;

	(void)usec;
	sd_event_source_set_enabled(source, SD_EVENT_OFF);
	supervisor->cluster->armed_ms = INT64_MAX;
	decide_soon(supervisor);
	return 0;
}

void cluster_wake(struct supervisor *supervisor, int64_t due_ms)
{
	struct cluster *cluster = supervisor->cluster;

	if (due_ms < 0 || due_ms >= cluster->armed_ms)
		return;
	cluster->armed_ms = due_ms;
	sd_event_source_set_time(cluster->timer, (uint64_t)due_ms * 1000);
	sd_event_source_set_enabled(cluster->timer, SD_EVENT_ONESHOT);
}

void cluster_round(struct supervisor *supervisor, int64_t now_ms)
{
	if (!supervisor->cluster->clustered)
		return;
	take_standing(supervisor);
	set_gauges(supervisor);
	peers_round(supervisor, now_ms);
	saying_round(supervisor, now_ms);
	survey_round(supervisor, now_ms);
	planning_round(supervisor, now_ms);
	checks_round(supervisor, now_ms);
	cluster_wake(supervisor, now_ms + TICK_MS);
}

/* Its life. */

static int open_parts(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;
	int r = registry_open(supervisor);

	if (r >= 0)
		r = timer_new(supervisor->event, &cluster->timer, ACCURACY_US, on_wake, supervisor);
	/* As decide.c's own: after the I/O of a turn. */
	if (r >= 0)
		r = sd_event_source_set_priority(cluster->timer, SD_EVENT_PRIORITY_NORMAL + 5);
	if (r < 0 || !cluster->clustered)
		return r;
	r = registry_watch(supervisor, "plan", true);
	return r < 0 ? r : registry_watch(supervisor, "orders", true);
}

int cluster_open(struct supervisor *supervisor, struct why *why)
{
	struct cluster *cluster = calloc(1, sizeof *cluster);
	int r;

	if (!cluster)
		return why_set(why, -ENOMEM, "out of memory");
	supervisor->cluster = cluster;
	cluster->clustered = strcmp(supervisor->config->registry.plugin, "none") != 0;
	cluster->armed_ms = INT64_MAX;
	r = open_parts(supervisor);
	if (r < 0)
		return why_set(why, r, "event loop: %s", strerror(-r));
	planning_open(supervisor);
	orders_open(supervisor);
	discover_open(supervisor);
	take_standing(supervisor);
	return 0;
}

void cluster_close(struct supervisor *supervisor)
{
	struct cluster *cluster = supervisor->cluster;

	if (!cluster)
		return;
	registry_close(supervisor); /* first: its answers are for those below */
	survey_end(supervisor);
	saying_close(supervisor);
	planning_close(supervisor);
	checks_close(supervisor);
	orders_close(supervisor);
	discover_close(supervisor);
	peers_close(supervisor);
	sd_event_source_disable_unref(cluster->timer);
	free(cluster);
	supervisor->cluster = NULL;
}
