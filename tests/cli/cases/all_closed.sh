"$LORAFOLD" --version <&- >&- 2>&-
