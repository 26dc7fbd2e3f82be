# Ends a command whose owner was killed. $1 is what `kill` takes: a process, or `-` and its group.
#
# The owner holds the other end of standard input, and says a word before it closes it. A process
# group of its own keeps this from being told what is meant for the owner.

trap '' HUP INT TERM
read -r word && exit
kill -s TERM -- "$1" 2>/dev/null
for second in 1 2 3 4 5; do
    kill -s 0 -- "$1" 2>/dev/null || exit
    sleep 1
done
kill -s KILL -- "$1" 2>/dev/null
