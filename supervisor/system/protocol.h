/* SPDX-License-Identifier: MIT */
/*
 * What Drover's processes say to each other: the verbs and fields of every channel. This file is
 * the contract; it has no code. Times are milliseconds; a field in [brackets] may be left out;
 * "x*" occurs any number of times. Unknown fields are ignored, unknown verbs too.
 *
 * Every role, with the supervisor, on fd 3
 *   → ping {n}              must be answered by  ← pong {n}  in time, or the process is killed
 *   → setup {…}             the first message; fields per role below
 *   ← ready {}              the role works
 *   ← failed {why}          it cannot; it exits with status 1
 *
 * Fields of a broker (gauge, dispatcher, errand): broker (its name), plugin (its name),
 *   plugin_path, set.NAME* (its settings as in the configuration), state_dir, node, instance
 * Fields of a queue: type, queue, bind*, retry_first_ms, retry_factor_percent, retry_cap_ms,
 *   exclusive, declare ("auto", "none"), [retry_queue, dead_letter], timeout_ms, max_attempts,
 *   content_type, max_bytes, required*
 *
 * gauge
 *   → setup {broker fields, interval_ms}
 *   → queue {queue fields}  sample this one from now on, and at once
 *   → forget {queue}
 *   → sleep {on}            with `on` no queue is sampled: another node does; the broker is still watched
 *   → hosts {host*}         what was discovered in place of the setting `hosts`
 *   ← broker {state (enum drover_broker_state), sentence, [scope (enum drover_broker_scope)]}
 *   ← depth {queue, ready, delayed, dead, oldest_ms, useful_max, consumers,
 *             includes_held}
 *                           -1: unknown; on change, and of a queue that is not empty every 5 s.
 *                           All depths are told anew after a broker message with another state
 *
 * registrar: include/drover/registry.h in messages. What is a list there comes as a row each, and then
 *   the verb that ends the list and makes it the whole of what is known
 *   → setup {plugin fields, cluster, node_id, version, weight, [address], port, started_ms}
 *   → check {id, name, health (enum drover_health), text} …  → report {tag*}
 *   → leave {leaving}       → deregister {}
 *   → members {on}
 *   → watch {key}  → unwatch {key}      a "/" at the end: all keys that begin with it
 *   → put {ask, key, [data], [version], fenced}     without data: removes it
 *   → elect {}  → resign {}
 *   → discover {service}  → undiscover {service}
 *   ← registry {state ("UP", "SUSPENDED", "LOST", "REFUSED"), sentence}
 *   ← member {node, node_id, version, address, weight, alive, leaving, self, started_ms} …
 *     ← members {}
 *   ← value {watch, key, data, version} …  ← values {watch}
 *   ← leader {leading, node, node_id}
 *   ← maintenance {on, reason}
 *   ← endpoint {service, host, port, weight} …  ← endpoints {service}
 *   ← put {ask, status (as drover_put_result.error), version, sentence}
 *   ← deregistered {}
 *
 * dispatcher
 *   → setup {broker fields, queue fields, policy fields}
 *   → policy {policy fields}          a live change
 *   → template {generation, trial} + fd of the link
 *                           The newest generation gets all new workers, older ones drain. With
 *                           `trial` the older generation is kept until the supervisor says
 *                           prove {generation}: then it drains
 *   → revert {generation}   the generation on trial was refused: its idle workers are stopped, its
 *                           busy ones finish, and the one before it serves again
 *   → target {workers}      keep as many workers; shed idle ones only
 *   → broker {state, sentence}  what the gauge found; reconnect at once when it is UP
 *   → hosts {host*}         what was discovered in place of the setting `hosts`
 *   → pause {}  → resume {} hand nothing out; give back what is not handed out
 *   → drain {}              take nothing more, let busy workers finish (up to stop_timeout_ms), give
 *                           the rest back, settle, then  ← drained {}  and exit 0
 *   → kick {pid}            end this worker; its event is retried as if it had crashed
 *   → ps {ask}
 *   ← row {ask, pid, generation, state ("starting", "running", "idle", "busy", "ending"),
 *          [id, attempt, elapsed_ms], events, age_ms, memory_bytes} …  ← end {ask}
 *   ← report {…}            at most every 100 ms, on change; at once when the first event was
 *                           handled, when mode, broker_state or consumers changed, or when all
 *                           workers became busy; at least every 2 s while it lives:
 *       broker_state, broker_sentence, consumers (of its queue, that are this dispatcher's), mode
 *       ("normal", "probe", "paused", "draining"), mode_until_ms (time left), starting, ready,
 *       busy, idle_low (the fewest idle since the last report), unsettled (events whose outcome the
 *       broker has yet to confirm), unsettled_ms (how long the first of them waits for that), held
 *       (taken, not handed out), in_flight (handed out), handled (settled for good or
 *       to retry, ever), done, failed, rejected, crashed, timed_out, retried, dead, skipped (by the
 *       inbox), emitted (all monotonic in this process), handling_us (smoothed time of an event in
 *       a handler; -1: unknown), oldest_wait_ms, handle_histogram, wait_histogram
 *       (policy/histogram.h, encoded, since start), generation, generation_outcomes,
 *       generation_crashes (distinct events), generation_failed_starts (in a row; all three of the
 *       newest generation), last_error, log_dropped
 *   ← retired {generation}  no worker of it is left; its link is closed
 *
 * Policy fields: mode ("event", "stream", "consumer"; of the setup only), timeout_ms,
 *   stop_timeout_ms, max_attempts, retry_first_ms, retry_factor_percent, retry_cap_ms,
 *   brake ("auto", "off"), inbox ("none", "sqlite"), inbox_key, inbox_keep_ms, recycle_events,
 *   recycle_age_ms, recycle_bytes, log_rate, content_type, max_bytes, required*, handler (its file's name,
 *   for logs)
 *
 * With mode "consumer" the dispatcher opens no broker, hands nothing out and keeps `target` workers
 * that are "running", never busy or idle; the ones that are too many are told to end (SIGTERM to the
 * program, timeout_ms or, in a drain, stop_timeout_ms until SIGKILL). An exit with status 0 counts as
 * one of generation_outcomes, any other as crashed and as one of generation_failed_starts.
 *
 * template, with the supervisor on fd 3
 *   → setup {type, generation, handler ("so", or the name of an in-tree handler plugin: "exec"),
 *            plugin_path, file (the name people know), trial, set.NAME*}
 *            + [fd: the sealed memfd of a .so]
 *   ← ready {load_ms}       loaded and checked: one thread, no new socket. With `trial` it exits 0
 *   ← failed {why}
 * template, with the dispatcher on fd 4, the link
 *   → fork {slot} + 3 fds: the worker's socket (frames to it), the pipe for its frames, and the
 *     pipe for its stdout and stderr
 *   ← forked {slot, pid}   ← unforked {slot, why}
 *   → signal {slot, signal}
 *   ← exited {slot, status (of waitpid), memory_bytes (ru_maxrss)}
 *   The link's end: the dispatcher is gone or has retired this generation; workers are killed, the
 *   template exits.
 *
 * api
 *   → setup {node, version, read_only} + fd: the listening socket
 *   ← ask {ask, command, uid, pid, arg.NAME*}
 *   → row {ask, row ("node", "type", "broker", …), …}  keys with dots are nested objects in JSON,
 *                           keys that end in [] are elements of a list
 *   → more {ask}            there are more rows, they are sent after  ← next {ask}
 *   → end {ask, status (0, or -errno), [why]}
 *   → errand {ask} + fd: a channel to an errand that now serves the request (below)
 *   ← cancel {ask}          the client went away
 *
 * errand
 *   → setup {errand ("publish", "dead", "declare", "check"), arg.NAME*, broker fields} then
 *   → queue {queue fields} for each type of the broker
 *   → go {} + [fd: the channel to the api, if somebody waits there]
 *   with the api: → data {data} … → eof {}   the body of the request, at most 32 KiB a message
 *                 ← data {data} …            the body of the answer
 *                 ← end {status (0, or -errno), [why]}   and the errand exits
 *   without an api (declare, check) the supervisor gets  ← end {status, [why]}
 *
 *   publish: arg.type, [arg.format] ("event", the default: the body of the request is the event's;
 *     "ndjson": a CloudEvents JSON object a line, `type` defaults to arg.type), [arg.id, arg.source,
 *     arg.subject, arg.time, arg.datacontenttype, arg.traceparent, arg.delay_ms]. The answer is one
 *     JSON object {"published": n, "ids": [the first 100]}, also before an `end` that is a refusal;
 *     a refused line ends the errand with its number in `why`, what went before it is published and
 *     counted.
 *   dead: arg.type, arg.action ("list", "show", "export", "replay", "purge"), selection: [arg.id* (of
 *     the event), arg.key* (of the letter, as list shows it), arg.reason (a part of it), arg.before,
 *     arg.after (RFC 3339, of the last attempt), arg.limit], [arg.rate (events per second)]. list: a
 *     JSON object a line {key, id, source, type, time, subject, attempts, reason, node, first, last,
 *     size}; show and export: CloudEvents JSON objects with these besides under "drover"; replay and
 *     purge: {"replayed": n} and {"purged": n}, of letters that were dead when it began.
 *   declare: [arg.type (that one alone)], [arg.dry_run (only say what differs)]. A JSON object a line
 *     {type, queue, outcome ("same"; "differs": something was made, or is not as configured;
 *     "failed"), [sentence]}, for each queue. `why` of a success says what differed, that of the end
 *     what failed: the first, and how many more
 *   check: [arg.kind ("brokers", "registries"), arg.discovered (flag: its hosts come from the
 *     registry)]: tries plugin and settings. Before its end it says
 *     ← secret {name*}: the settings of the plugin that are shown nowhere
 */
#ifndef DROVER_SYSTEM_PROTOCOL_H
#define DROVER_SYSTEM_PROTOCOL_H

#define PROTOCOL_CHANNEL_FD 3
#define PROTOCOL_LINK_FD    4

#endif
