/* crew_share.c - work before the first block, in the places of all workers */
#include "pipeline/internal.h"

#include <signal.h>
#include <stdlib.h>

struct place {
    const struct scratch *scratch;
    int (*share)(void *context, const struct scratch *scratch, struct error *err);
    void *context;
    pthread_t thread;
    bool started;
    int status;
    struct error error; /* if status */
};

static void *place_main(void *argument)
{
    struct place *place = argument;
    struct fold_environment environment;

    fold_environment_enter(&environment);
    place->status = place->share(place->context, place->scratch, &place->error);
    fold_environment_leave(&environment);
    return NULL;
}

/* A thread less is slower and no error: the calling thread does what is left. */
static void start_places(struct place *places, unsigned count)
{
    sigset_t all;
    sigset_t before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    for (unsigned i = 1; i < count; i++)
        places[i].started = pthread_create(&places[i].thread, NULL, place_main, &places[i]) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int crew_share(struct crew *crew,
               int (*share)(void *context, const struct scratch *scratch, struct error *err),
               void *context, struct error *err)
{
    struct place *places = calloc(crew->worker_count, sizeof(*places));
    int status = 0;

    if (!places)
        return error_no_memory(err, "the places of workers");
    for (unsigned i = 0; i < crew->worker_count; i++) {
        places[i].scratch = &crew->workers[i].scratch;
        places[i].share = share;
        places[i].context = context;
    }
    start_places(places, crew->worker_count);
    place_main(&places[0]);
    for (unsigned i = 0; i < crew->worker_count; i++) {
        if (places[i].started)
            pthread_join(places[i].thread, NULL);
        if (places[i].status && !status) {
            status = places[i].status;
            *err = places[i].error;
        }
    }
    free(places);
    return status;
}
