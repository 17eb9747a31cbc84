#!/usr/bin/env bash
# Builds Drover and shows it at work: a private droverd in ./.quickstart with the sample handlers of etc/examples.
#
#     ./quickstart.sh           watches it live until Ctrl-C
#     ./quickstart.sh --exit    ends when all events are settled, with a summary; needs no terminal
#
# Installs Debian packages that are missing; everything else stays below this directory.
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

ctl() { "$build/supervisor/droverctl" --socket "$home/run/control.sock" "$@"; }

# One value of `status --json`, by an SQL expression over its types.
ask() { ctl --json status | sqlite3 :memory: "SELECT $1 FROM json_each(readfile('/dev/stdin'), '\$.types')"; }

configure_drover() {
	rm -rf "$home"
	mkdir -p "$home"/{handlers,run,outbox}
	chmod -R go-w "$home"
	make -s -C "$top/etc/examples" OUT="$home/handlers" CPPFLAGS="-I$top/include" >/dev/null
	cat >"$home/drover.conf" <<CONF
# Made by quickstart.sh.
node = "quickstart";
runtime_dir = "$home/run";
state_dir = "$home/state";
handlers = [ "$home/handlers" ];
$([ "$(id -u)" != 0 ] || echo 'user = "root"; # only here: a real installation names a user without privileges')

defaults = { objective = "2s"; max = 8; max_attempts = 3; retry = { first = "500ms"; factor = 2; cap = "2s"; }; };
types = (
  { type = "user.registered"; environment = { OUTBOX = "$home/outbox"; }; },
  { type = "order.paid"; environment = { LEDGER = "$home/ledger.db"; }; }
);
budgets = ( { name = "node"; types = [ "*" ]; max = 12; floor = 1; } );
CONF
}

start_drover() {
	say "Starting a private droverd (its log: .quickstart/droverd.log)"
	"$build/supervisor/droverd" --config "$home/drover.conf" >"$home/droverd.log" 2>&1 &
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
	kill "$droverd" 2>/dev/null && wait "$droverd" 2>/dev/null || true
}

# The samples, and a burst of ordinary events so that there is something to scale for.
publish() {
	ctl publish user.registered --ndjson --file "$top/etc/examples/events.ndjson"
	seq "$1" | sed 's|.*|{"type": "order.paid", "source": "/shop", "data": {"order": &, "amount": 1999}}|' |
		ctl publish order.paid --ndjson --file -
}

watch_until_settled() {
	local left peak=0 workers
	while :; do
		read -r left workers < <(ask "sum(value->>'ready' + value->>'delayed' + value->>'in_flight') || ' ' ||
			sum(value->>'\$.workers.running')")
		((workers > peak)) && peak=$workers
		printf '   %s events left, %s workers\n' "$left" "$workers"
		[ "$left" = 0 ] && break
		sleep 0.5
	done
	echo "   the most workers at a time: $peak"
}

summary() {
	say "How it ended"
	ctl status
	say "What the handlers did"
	echo "   user.registered: $(find "$home/outbox" -type f | wc -l) mails in .quickstart/outbox"
	echo "   order.paid: $(sqlite3 "$home/ledger.db" 'SELECT count(*) FROM ledger') rows in .quickstart/ledger.db, each stored with its event's id"
	say "What failed on purpose: one kind succeeded at the third try, one was rejected, one crashed its handler"
	for type in user.registered order.paid; do
		echo "\$ droverctl dead list $type"
		ctl dead list "$type"
	done
	say "Why there were so many workers"
	echo "\$ droverctl why order.paid"
	ctl why order.paid | head -15
}

install_packages
make_drover
configure_drover
start_drover
say "Publishing the sample events, and a burst of orders"
publish 300
if [ $once = yes ]; then
	watch_until_settled
	summary
	exit 0
fi
echo "   more come every 20 seconds; Ctrl-C ends it"
(while sleep 20; do publish $((RANDOM % 500 + 50)) >/dev/null 2>&1 || exit; done) &
publisher=$!
trap 'kill $publisher 2>/dev/null; stop_drover' EXIT
trap : INT
ctl top || true
trap - INT
summary
