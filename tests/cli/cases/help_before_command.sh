"$LORAFOLD" --help verify | sed -n 1p; exit ${PIPESTATUS[0]}
