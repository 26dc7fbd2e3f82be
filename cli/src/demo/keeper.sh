# Runs a command for as long as somebody holds the other end of standard input, and tells it to
# stop when nobody does: a demo that is killed leaves no exporter behind. What comes from there is
# typed to the command, by way of the pipe $1 that is made here.

keys=$1
shift
mkfifo -m 600 "$keys" || exit
exec 3<&0 </dev/null
"$@" <"$keys" 3<&- &
command=$!
{
    cat <&3 >"$keys" &
    typist=$!
    trap 'kill -s KILL "$typist"' TERM
    wait "$typist"
    kill -s TERM "$command"
} >/dev/null 2>&1 &
reader=$!
exec 3<&-
wait "$command"
code=$?
exec 2>/dev/null
kill -s TERM "$reader"
wait "$reader"
exit "$code"
