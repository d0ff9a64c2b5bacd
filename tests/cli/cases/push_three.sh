"$LORAFOLD" push ./out org/name again
