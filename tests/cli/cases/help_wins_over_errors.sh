"$LORAFOLD" merge --nonsense -o --help | head -n 1; exit ${PIPESTATUS[0]}
