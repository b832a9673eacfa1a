/* Dates: a stolen key and its revocation, and a deadline, by the times of a quorum of witnesses.

   The clock runs from 0 to LAST. From REVOKED on a thief has the key, and the trust file says so. One statement by the owner and
   one by the thief; each may carry any time inside, and goes into the log when somebody puts it there. An honest witness states
   its clock; the first COLLUDING witnesses state any time. The intruder shows any of the cosignatures, and leaves out others. */

//@ small -
//@ full LAST=3
//@ property revoked_key_after_witness_time: a statement by a key that was revoked counts only if its owner made it
//@ property deadline_by_quorum_time: a statement that counts as in time was in the log by the deadline
//@ protection NO_REVOCATION_CHECK breaks revoked_key_after_witness_time | SPEC 6.4 | protocol/trust.py Signer.check_time | a key with a revocation counts only before it | WITNESSES=2
//@ protection NO_QUORUM_TIME breaks deadline_by_quorum_time | SPEC 6.5 | auditor/checks/freshness.py check | dates come from a quorum, not from the statement | WITNESSES=2
//@ protection NO_LATEST_OF_QUORUM breaks revoked_key_after_witness_time | SPEC 5.6 | protocol/log/policy.py Policy.quorum_time | the quorum's time is its last member's, not its first one's | WITNESSES=2
//@ limit COLLUDING=2 breaks revoked_key_after_witness_time | SPEC 5.6 | protocol/log/policy.py Policy.quorum_time | a quorum that colludes with the thief states any time | WITNESSES=2

#define P_revoked_key_after_witness_time 1
#define P_deadline_by_quorum_time 2
#include "checks.h"

#ifndef WITNESSES
#define WITNESSES 3
#endif
#ifndef COLLUDING
#define COLLUDING 1
#endif
#ifndef LAST
#define LAST 2
#endif
#define QUORUM 2
#define REVOKED 2
#define DEADLINE 1
#define NEVER 9
#define IF(condition) if :: (condition) ->
#define FI :: else fi

/* Statement 0 is the owner's, 1 the thief's. `logged`: when; `stated`: the time inside. */
typedef Statement { byte logged; byte stated; byte cosigned[WITNESSES] };
Statement statement[2];
byte now;
byte m, w, t, u, first, second, shown;  /* scratch, 0 between steps */

proctype Clock() { do :: atomic { now < LAST -> now++; printf("MSC: (the clock says %d)\n", now) } od }

proctype Signers() {
    do
    :: atomic { true ->
        select(m : 0 .. 1);
        IF(statement[m].logged == NEVER && (m == 0 || now >= REVOKED))
            select(t : 0 .. LAST);
            statement[m].stated = t; statement[m].logged = now;
            printf("MSC: %d (0: owner, 1: thief) -> log: statement %d, which says that it was made at %d\n", m, m, t)
        FI;
        m = 0; t = 0 }
    od
}

proctype Witnesses() {
    do
    :: atomic { true ->
        select(m : 0 .. 1); select(w : 0 .. WITNESSES - 1);
        IF(statement[m].logged != NEVER && statement[m].cosigned[w] == NEVER)
            t = now;
            IF(w < COLLUDING) select(t : 0 .. LAST) FI;
            statement[m].cosigned[w] = t;
            printf("MSC: witness %d: saw statement %d at %d\n", w, m, t)
        FI;
        m = 0; w = 0; t = 0 }
    od
}

/* Takes the cosignatures that the intruder shows; `first` and `second` are the smallest two times. */
proctype Reader() {
    do
    :: atomic { true ->
        select(m : 0 .. 1); select(shown : 0 .. (1 << WITNESSES) - 1);
        first = NEVER; second = NEVER;
        IF(statement[m].logged != NEVER)
            w = 0;
            do
            :: w < WITNESSES ->
                u = ((shown >> w) & 1 -> statement[m].cosigned[w] : NEVER);
                if
                :: u < first -> second = first; first = u
                :: u >= first && u < second -> second = u
                :: else
                fi;
                w++
            :: else -> break
            od;
            IF(second != NEVER) /* the quorum of two is met */
                t = second;
#ifdef NO_LATEST_OF_QUORUM
                t = first;
#endif
#ifdef NO_QUORUM_TIME
                t = statement[m].stated;
#endif
#ifdef NO_REVOCATION_CHECK
                IF(true)
#else
                IF(t < REVOKED)
#endif
                    printf("MSC: reader: statement %d counts, as of %d\n", m, t);
                    CHECK(revoked_key_after_witness_time, true, m == 0);
                    IF(t <= DEADLINE)
                        printf("MSC: reader: statement %d counts as in time\n", m);
                        CHECK(deadline_by_quorum_time, true, statement[m].logged <= DEADLINE)
                    FI;
                    HONEST_END(m == 0 && now == LAST)
                FI
            FI
        FI;
        m = 0; w = 0; t = 0; u = 0; shown = 0; first = 0; second = 0 }
    od
}

init {
    atomic {
        for (m : 0 .. 1) {
            statement[m].logged = NEVER;
            for (w : 0 .. WITNESSES - 1) { statement[m].cosigned[w] = NEVER }
        }
        m = 0; w = 0;
        run Clock(); run Signers(); run Witnesses(); run Reader()
    }
}
