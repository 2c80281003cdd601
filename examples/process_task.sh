#!/usr/bin/env bash
# Runs one token: process_task.sh INPUT TOKENID [TASK_TYPE]. Its exit code is the token's.
INPUT=$1
OUTPUT=output_$2
here=$(cd "$(dirname "$0")" && pwd)

case ${3:-quick} in
    fractals) # INPUT holds the parameters; in a Grid sandbox the program lies beside this file.
        program=$here/bin/fractals
        [ -x "$program" ] || program=$here/fractals
        # Unquoted: the words of INPUT are the arguments.
        # shellcheck disable=SC2086
        "$program" -o "$OUTPUT" $INPUT
        ;;
    *) # INPUT is a shell line.
        eval "$INPUT"
        ;;
esac
