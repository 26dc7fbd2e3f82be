# Keeps one nats-server for as long as somebody holds the other end of standard input.
#
# $1 is a private directory with a nats-server.conf, $2 the server. Leads a process group of its own,
# so that a terminal's Ctrl-C does not reach the server and a wrapper script cannot hide it.
#
# Standard output is a pipe that only the server keeps open: its end is the server's end.
# Standard error is the lock on the store, or where that goes with the server, on the directory: the
# server holds it until it has ended.

run=$1
server=$2

alive() {
    kill -s 0 "$pid" || { [ -s "$run/pid" ] && kill -s 0 "$(cat "$run/pid")"; }
}

finish() {
    trap '' HUP INT TERM # the whole group is told, and this shell is one of it
    kill -s TERM 0
    beats=0
    while alive && [ "$beats" -lt 500 ]; do # 5 s
        sleep 0.01
        beats=$((beats + 1))
    done
    rm -rf -- "$run" || { sleep 0.1; rm -rf -- "$run"; }
    kill -s KILL 0 # whoever is left; this shell, too
}

exec 3>&2 2>/dev/null
trap finish HUP INT TERM
"$server" --config "$run/nats-server.conf" </dev/null 4>&1 >>"$run/server.err" 2>&1 &
pid=$!
exec >/dev/null

read -r word
if [ "$word" = kill ]; then
    kill -s KILL "$pid"
    wait "$pid"
    kill -s KILL 0
fi
finish
