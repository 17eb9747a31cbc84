#!/usr/bin/env bash
# Builds Drover and shows it at work: a private droverd in ./.quickstart with the sample handlers of etc/examples.
#
#     ./quickstart.sh           watches it live until Ctrl-C
#     ./quickstart.sh --exit    ends when all events are settled, with a summary; needs no terminal
#
# Installs Debian packages that are missing; everything else stays below this directory, and belongs to whom it belongs to.
set -euo pipefail
top=$(cd "$(dirname "$0")" && pwd)
home=$top/.quickstart
build=$top/build/quickstart
once=no
case ${1:-} in
--exit) once=yes ;;
"") [ -t 1 ] || once=yes ;;
*)
	echo "usage: ./quickstart.sh [--exit]" >&2
	exit 2
	;;
esac

packages=(autoconf automake pkg-config gcc make libc6-dev libsystemd-dev libconfig-dev libcjson-dev
	libcurl4-openssl-dev libmicrohttpd-dev libsqlite3-dev sqlite3)

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		echo "quickstart: packages are missing and there is no sudo; as root: apt-get install ${packages[*]}" >&2
		exit 1
	fi
}

install_packages() {
	local missing=()
	for p in "${packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing+=("$p")
	done
	[ ${#missing[@]} = 0 ] && return
	say "Installing ${missing[*]}"
	as_root apt-get update -qq
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

make_drover() {
	say "Building in build/quickstart"
	mkdir -p "$build"
	{
		[ -x "$top/configure" ] && [ "$top/configure" -nt "$top/configure.ac" ] || "$top/autogen.sh"
		cd "$build"
		[ -f Makefile ] || "$top/configure"
		make -j"$(nproc)"
	} >"$build/log" 2>&1 || {
		tail -30 "$build/log"
		echo "quickstart: the build failed; all of its output is in build/quickstart/log" >&2
		exit 1
	}
}

# Handlers need no root. Where this is somebody's directory, all but the packages is done as that somebody.
become_owner() {
	local owner
	owner=$(stat -c %u "$top")
	[ "$(id -u)" = 0 ] && [ "$owner" != 0 ] || return 0
	exec setpriv --reuid="$owner" --regid="$(stat -c %g "$top")" --clear-groups "$top/quickstart.sh" "$@"
}

ctl() { "$home/droverctl" "$@"; }

configure_drover() {
	if [ -x "$home/droverctl" ] && ctl version >/dev/null 2>&1; then
		echo "quickstart: one is running here already; end it first (Ctrl-C where it runs)" >&2
		exit 1
	fi
	rm -rf "$home"
	mkdir -p "$home"/{handlers,run,outbox}
	chmod -R go-w "$home"
	make -s -C "$top/etc/examples" OUT="$home/handlers"
	cat >"$home/drover.conf" <<CONF
# Made by quickstart.sh.
node = "quickstart";
runtime_dir = "$home/run";
state_dir = "$home/state";
handlers = [ "$home/handlers" ];
$([ "$(id -u)" != 0 ] || echo 'user = "root"; # only here: a real installation names a user without privileges')

defaults = { objective = "2s"; max = 8; max_attempts = 3; retry = { first = "500ms"; factor = 2; cap = "2s"; }; };
types = (
  { type = "user.registered"; environment = { OUTBOX = "$home/outbox"; MAIL_MS = "50"; }; },
  { type = "order.paid"; environment = { LEDGER = "$home/ledger.db"; }; }
);
budgets = ( { name = "node"; types = [ "*" ]; max = 12; floor = 1; } );
CONF
	cat >"$home/droverctl" <<CTL
#!/bin/sh
exec "$build/supervisor/droverctl" --socket "$home/run/control.sock" "\$@"
CTL
	chmod +x "$home/droverctl"
}

# In a session of its own, so that Ctrl-C is for this script, and never outliving it.
start_drover() {
	say "Starting a private droverd (its log: .quickstart/droverd.log)"
	setsid setpriv --pdeathsig TERM "$build/supervisor/droverd" --config "$home/drover.conf" >"$home/droverd.log" 2>&1 &
	droverd=$!
	trap stop_drover EXIT
	for _ in $(seq 100); do
		ctl version >/dev/null 2>&1 && return
		kill -0 "$droverd" 2>/dev/null || break
		sleep 0.1
	done
	cat "$home/droverd.log"
	echo "quickstart: droverd did not start" >&2
	exit 1
}

stop_drover() {
	[ -z "${publisher:-}" ] || kill "$publisher" 2>/dev/null || true
	kill "$droverd" 2>/dev/null && wait "$droverd" || true
}

# Ordinary events, as many of each type, so that there is something to scale for.
publish_burst() {
	seq "$1" | sed 's|.*|{"source": "/shop/checkout", "data": {"order": &, "amount": 1999}}|' |
		ctl publish order.paid --ndjson --file -
	seq "$1" | sed 's|.*|{"source": "/shop/signup", "data": {"user_id": &, "name": "User &", "email": "user&@example.org"}}|' |
		ctl publish user.registered --ndjson --file -
}

publish_again_and_again() {
	trap 'kill $!; exit' TERM
	while sleep 30 & wait $!; do
		publish_burst $((RANDOM % 300 + 50)) >/dev/null 2>&1 || exit
	done
}

watch_until_settled() {
	local status left workers handled peak=0
	while :; do
		status=$(ctl --json status)
		read -r left workers handled < <(sqlite3 -separator ' ' :memory: "
			SELECT sum(value->>'ready' + value->>'delayed' + value->>'in_flight'), sum(value->>'$.workers.running'),
				sum(value->>'$.totals.handled')
			FROM json_each('${status//\'/\'\'}', '$.types')")
		((workers > peak)) && peak=$workers
		printf '   %4s events left, %2s workers\n' "$left" "$workers"
		[ "$left" = 0 ] && ((handled >= published)) && break
		sleep 0.5
	done
	echo "   the most workers at a time: $peak"
}

show() {
	printf '\n$ .quickstart/droverctl %s\n' "$*"
	ctl "$@"
}

summary() {
	say "How it ended"
	show status
	say "What the handlers did"
	echo "   user.registered: $(find "$home/outbox" -name '*.eml' | wc -l) mails in .quickstart/outbox, one per event"
	echo "   order.paid: $(sqlite3 "$home/ledger.db" 'SELECT count(*) FROM ledger') rows in .quickstart/ledger.db, with their events' ids; samples:"
	sqlite3 -box "$home/ledger.db" "SELECT event, order_number, cents, attempt FROM ledger WHERE event LIKE 'pay-%'"
	echo "   pay-1002 came twice and is booked once; pay-1003 failed twice on purpose."
	say "What failed for good, on purpose: two were rejected, one crashed three times"
	show dead list user.registered
	show dead list order.paid
	say "Why there were so many workers"
	show why order.paid | sed -n 1,15p # to its end: who writes to a head that has left fails
}

farewell() {
	say "All of it has ended; its files are in .quickstart"
	cat <<-END
	While ./quickstart.sh runs, look for yourself in another terminal:
	   .quickstart/droverctl status                  or ps, why TYPE, plugins, top
	   .quickstart/droverctl publish order.paid --data '{"order": 7, "amount": 100}'
	   .quickstart/droverctl dead show order.paid    or replay, to give it a chance
	   .quickstart/droverctl pause order.paid        or resume, scale, drain; --help
	END
}

install_packages
become_owner "$@"
make_drover
configure_drover
start_drover
say "Publishing the sample events, and a burst of both types"
ctl publish user.registered --ndjson --file "$top/etc/examples/events.ndjson"
burst=300 # of each type
publish_burst $burst
published=$(($(wc -l <"$top/etc/examples/events.ndjson") + 2 * burst))
if [ $once = yes ]; then
	watch_until_settled
else
	publish_again_and_again &
	publisher=$!
	trap : INT
	ctl top || true
	trap - INT
fi
summary
stop_drover
trap - EXIT
farewell
