"$LORAFOLD" --help verify | head -n 1; exit ${PIPESTATUS[0]}
