/* A log that signs several histories, its witnesses, and two readers who remember what they saw.

   The log is dishonest and signs anything. Its two histories share the first entry and differ from the second one on; a
   checkpoint is a history and a size. Consistency of two checkpoints is decided as a consistency proof would. */

//@ small -
//@ full SIZES=3
//@ full QUORUM=3 COLLUDING=1 SIZES=3
//@ full WITNESSES=4 QUORUM=3 COLLUDING=1
//@ property no_split_view_with_quorum: what two readers accept are checkpoints of one history
//@ property no_rollback_past_memory: a reader's next checkpoint extends all that it accepted before
//@ protection NO_WITNESS breaks no_split_view_with_quorum | SPEC 5.6 | protocol/log/policy.py Policy.verify_checkpoint | a checkpoint needs a quorum of witnesses | -
//@ protection NO_WITNESS_CONSISTENCY breaks no_split_view_with_quorum | SPEC 5.8 | protocol/log/witness.py _compare | a witness cosigns only what extends what it remembers | WITNESSES=2
//@ protection NO_STORE_FIRST breaks no_split_view_with_quorum | SPEC 5.8 | protocol/log/witness.py Memory.replace | a witness stores before it signs | WITNESSES=2
//@ protection NO_MEMORY breaks no_rollback_past_memory | SPEC 5.7 | auditor/history.py _compare | a reader compares with what it remembers | -
//@ limit COLLUDING=1 breaks no_split_view_with_quorum | SPEC 5.6 | protocol/log/policy.py Policy.quorum_time | with two of three witnesses needed, one that colludes with the log is enough for two histories: two quorums share one witness only | -

#define P_no_split_view_with_quorum 1
#define P_no_rollback_past_memory 2
#include "checks.h"

#ifndef WITNESSES
#define WITNESSES 3
#endif
#ifndef QUORUM
#define QUORUM 2
#endif
/* The first so many witnesses collude with the log: they cosign anything. */
#ifndef COLLUDING
#define COLLUDING 0
#endif
#ifndef SIZES
#define SIZES 2
#endif
#define IF(condition) if :: (condition) ->
#define FI :: else fi
#define CONSISTENT(b1, s1, b2, s2) ((b1) == (b2) || (s1) <= 1 || (s2) <= 1)

typedef Seen { byte history; byte size };
Seen witness[WITNESSES]; Seen reader[2];
byte cosigned[2 * (SIZES + 1)];  /* by history and size: the witnesses who cosigned, as bits */
byte w, r, b, s, i, count;  /* scratch, 0 between steps */

#ifdef NO_WITNESS_CONSISTENCY
#define EXTENDS(x, b, s) true
#else
#define EXTENDS(x, b, s) (x.size <= (s) && CONSISTENT(x.history, x.size, b, s))
#endif
#ifdef NO_MEMORY
#define REMEMBERS(x, b, s) true
#else
#define REMEMBERS(x, b, s) (x.size <= (s) && CONSISTENT(x.history, x.size, b, s))
#endif

active proctype Witnesses() {
    do
    :: atomic { true ->
        select(w : 0 .. WITNESSES - 1); select(b : 0 .. 1); select(s : 1 .. SIZES);
        IF(w < COLLUDING || EXTENDS(witness[w], b, s))
            /* On a common prefix both histories have the same checkpoint. */
            IF(s == 1) b = 0 FI;
            if
            :: witness[w].history = b; witness[w].size = s
#ifdef NO_STORE_FIRST
            :: printf("MSC: (witness %d crashes after signing, before storing)\n", w)
#endif
            fi;
            IF((cosigned[b * (SIZES + 1) + s] & (1 << w)) == 0)
                cosigned[b * (SIZES + 1) + s] = cosigned[b * (SIZES + 1) + s] | (1 << w);
                printf("MSC: log -> witness %d: cosigns history %d, size %d\n", w, b, s)
            FI
        FI;
        w = 0; b = 0; s = 0 }
    od
}

active proctype Readers() {
    do
    :: atomic { true ->
        select(r : 0 .. 1); select(b : 0 .. 1); select(s : 1 .. SIZES);
        IF(s == 1) b = 0 FI;
        i = 0; count = 0;
        do
        :: i < WITNESSES -> if :: (cosigned[b * (SIZES + 1) + s] >> i) & 1 -> count++ :: else fi; i++
        :: else -> break
        od;
#ifdef NO_WITNESS
        count = QUORUM;
#endif
        IF(count >= QUORUM && REMEMBERS(reader[r], b, s))
            IF(reader[r].size != s || reader[r].history != b)
                printf("MSC: log -> reader %d: accepts history %d, size %d\n", r, b, s)
            FI;
            CHECK(no_split_view_with_quorum, reader[1 - r].size > 0, CONSISTENT(reader[1 - r].history, reader[1 - r].size, b, s));
            CHECK(no_rollback_past_memory, reader[r].size > 0,
                  reader[r].size <= s && CONSISTENT(reader[r].history, reader[r].size, b, s));
            HONEST_END(r == 1 && s == SIZES && reader[0].size == SIZES && reader[0].history == b);
            reader[r].history = b; reader[r].size = s
        FI;
        r = 0; b = 0; s = 0; i = 0; count = 0 }
    od
}
