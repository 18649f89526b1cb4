#!/usr/bin/env bash
# Installs the Debian packages of a list (one a line: NAME  # what for) that are missing, and says what it does and why.
set -euo pipefail

list=$1

if ! node_major=$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null) || ((node_major < 20)); then
	echo "Sluice needs Node 20 or later; found: $(node --version 2>/dev/null || echo none)" >&2
	exit 1
fi

missing=()
reasons=()
while read -r name reason; do
	[[ -z $name || $name == '#'* ]] && continue
	if [[ $(dpkg-query -W -f='${Status}' "$name" 2>/dev/null) != 'install ok installed' ]]; then
		missing+=("$name")
		reasons+=("$(printf '  %-17s %s' "$name" "${reason#\# }")")
	fi
done <"$list"
((${#missing[@]} == 0)) && exit 0

echo "apt: installing the Debian packages that are missing:"
printf '%s\n' "${reasons[@]}"

if ! command -v apt-get >/dev/null; then
	echo "There is no apt-get here. Install the equivalents by hand, then: mkdir -p build && touch build/apt.stamp" >&2
	exit 1
fi
as_root=()
((EUID == 0)) || as_root=(sudo)
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
