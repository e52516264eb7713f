#!/bin/sh
# Every command and every option of --help stands in the manual, and the manual names no other option.
# usage: man_options.sh VMFERRY MANUAL_FOLDER
set -eu
vmferry=$1
man=$2
bad=0

# The long options of a --help text, and of a page's source, one per line.
of_help() { grep -oE '^  (-[a-z],|   ) --[a-z-]+' | grep -oE -e '--[a-z-]+' | sed 's/^--//' | sort -u; }
of_page() { grep -oE '^\.It .*' "$1" | grep -oE 'Fl \\&-[a-z-]+' | sed 's/.*\\&-//' | sort -u; }

commands=$("$vmferry" --help | sed -n '/^Commands:/,/^$/p' | awk 'NR > 1 && NF { print $1 }')
[ -n "$commands" ] || { echo "--help lists no commands"; exit 1; }
common=$("$vmferry" --help | of_help)
[ -n "$common" ] || { echo "--help lists no options"; exit 1; }

if [ "$common" != "$(of_page "$man/vmferry.1")" ]; then
    echo "vmferry.1 and vmferry --help name different options"
    bad=1
fi
for command in $commands; do
    page=$man/vmferry-$command.1
    [ -f "$page" ] || { echo "there is no page for $command"; bad=1; continue; }
    grep -q "^.It Cm $command\$" "$man/vmferry.1" || { echo "vmferry.1 does not name $command"; bad=1; }
    own=$("$vmferry" "$command" --help | sed '/^Options of every command/,$d' | of_help)
    if [ "$own" != "$(of_page "$page")" ]; then
        echo "$page and vmferry $command --help name different options"
        bad=1
    fi
done
exit $bad
