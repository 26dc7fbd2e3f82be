# Runs a command for as long as somebody holds the other end of standard input, and tells it to
# stop when nobody does: a demo that is killed leaves no exporter behind.

exec 3<&0 </dev/null
"$@" 3<&- &
command=$!
{
    read -r _ <&3
    kill -s TERM "$command"
} >/dev/null 2>&1 &
reader=$!
exec 3<&-
wait "$command"
code=$?
kill -s KILL "$reader" 2>/dev/null
exit "$code"
