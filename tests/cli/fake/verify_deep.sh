# BASE stands behind --deep or OUT, or there is none.
for words in "out --deep base" "--deep base out" "out base --deep" "out --deep" "--deep out"; do
    "$LORAFOLD" verify $words 2>&1
done
