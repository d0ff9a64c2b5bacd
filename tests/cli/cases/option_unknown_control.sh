"$LORAFOLD" merge $'--\033[31mred\xff'
