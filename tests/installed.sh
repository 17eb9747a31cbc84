#!/bin/sh
# An installation at work, as its own files let a user do it: builds the sample handlers with pkg-config, serves an
# event of each with droverd, and stops it. `make installcheck` runs it, and so does `make distcheck`.
# Usage: installed.sh SBINDIR BINDIR PKGCONFIGDIR EXAMPLESDIR
set -eu
sbin=$1 bin=$2 examples=$4
export PKG_CONFIG_PATH="$3"
unset MAKEFLAGS MAKELEVEL # of the make that runs this
# A handlers directory must not lie where others can write.
base=/run
[ "$(id -u)" = 0 ] || base=${XDG_RUNTIME_DIR:-$HOME}
d=$(mktemp -d "$base/drover-installed.XXXXXX")
droverd=
end() {
	status=$?
	[ -z "$droverd" ] || kill "$droverd" 2>/dev/null || true
	[ $status = 0 ] || cat "$d/log"
	rm -rf "$d"
}
trap end EXIT

mkdir "$d/handlers" "$d/run"
make -f "$examples/Makefile" OUT="$d/handlers"
cat >"$d/drover.conf" <<CONF
runtime_dir = "$d/run";
state_dir = "$d/state";
handlers = [ "$d/handlers" ];
$([ "$(id -u)" != 0 ] || echo 'user = "root";')
types = (
  { type = "user.registered"; environment = { OUTBOX = "$d"; }; },
  { type = "order.paid"; environment = { LEDGER = "$d/ledger.db"; }; }
);
CONF
"$sbin/droverd" --config "$d/drover.conf" --check
"$sbin/droverd" --config "$d/drover.conf" >"$d/log" 2>&1 &
droverd=$!

export DROVER_SOCKET="$d/run/control.sock"
# await WHAT COMMAND...: until it succeeds, 20 seconds at most.
await() {
	what=$1
	shift
	tries=200
	until "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		if [ $tries = 0 ] || ! kill -0 "$droverd"; then
			echo "$0: never came: $what"
			exit 1
		fi
		sleep 0.1
	done
}
booked() { [ "$(sqlite3 "$d/ledger.db" 'SELECT order_number FROM ledger')" = 7 ]; }

await "an answer of droverd" "$bin/droverctl" version
"$bin/droverctl" publish user.registered --id one --data '{"name": "Ada Lovelace", "email": "ada@example.org"}'
"$bin/droverctl" publish order.paid --data '{"order": 7, "amount": 1999}'
await "a welcome mail" test -s "$d/one.eml"
await "a payment in the ledger" booked
"$bin/droverctl" status
kill "$droverd"
wait "$droverd"
droverd=
