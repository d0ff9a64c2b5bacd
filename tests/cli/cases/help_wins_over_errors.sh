"$LORAFOLD" merge --nonsense -o --help | sed -n 1p; exit ${PIPESTATUS[0]}
