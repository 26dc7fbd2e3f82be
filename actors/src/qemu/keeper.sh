# Keeps one virtual machine for as long as somebody holds the other end of standard input.
#
# $1 is the machine's private directory, the rest is its command. Leads a process group of its own,
# of which nobody is left when it ends.

run=$1
shift
exec 3<&0 </dev/null
{
    read -r _ <&3
    rm -rf -- "$run"
    kill -s KILL 0
} 2>/dev/null &
reader=$!
"$@" 3<&- &
machine=$!
echo "$machine" >"$run/pid"
wait "$machine"
code=$?
exec 2>/dev/null
kill -s KILL "$reader"
wait "$reader"
exit "$code"
