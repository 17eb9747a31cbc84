#!/bin/sh
# Makes `configure` from configure.ac; needed after a checkout, not for a release.
set -e
cd "$(dirname "$0")"
exec autoreconf --install --force
