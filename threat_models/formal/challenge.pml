/* Who fixes what before whom: plan, nonce, the owner's entry (a certificate, or an acknowledgement), the challenge.

   Either the owner is dishonest and the auditor's program runs, or the auditor is dishonest and the owner's program runs.
   Both at once can agree on anything, which no protocol prevents. A challenge is a hash of nonce and entry: who lacks the nonce
   learns it only by being told. "Knows" is a set of audits whose nonce the owner knows. The reader is somebody who replays the
   report with the bundle at hand (SPEC 13.6), or verifies the report alone (SPEC 14.4): both see the owner's entry itself. */

//@ small -
//@ full OPENINGS=3
//@ full ENTRIES=3
//@ property fresh_challenge: when a challenge is made, the owner does not know the nonce that it comes from
//@ property no_two_challenges_per_opening: one opened audit is challenged for one entry of the owner's
//@ property nonce_secret_until_named: a nonce is revealed only once an entry of the owner's names its audit
//@ property plan_fixed_before_entry: the plan was in the log before the owner's entry was made
//@ property nonce_fixed_before_entry: the auditor could not choose the challenge after seeing the owner's entry
//@ property opened_audit_in_log: an accepted audit was opened in the log, where one without a report would be seen
//@ property one_sample_per_entry: what an owner opens in answer to one entry of its log is one sample of records
//@ protection NO_NONCE_COMMITMENT breaks fresh_challenge | SPEC 9.3 | protocol/messages/opening.py nonce_commitment | the opening holds a hash of the nonce, not the nonce | -
//@ protection NO_REVEALED_RULE breaks fresh_challenge | SPEC 9.6 | auditor/opening.py make_challenge | no first challenge once the nonce is known | -
//@ protection NO_ONE_CHALLENGE breaks no_two_challenges_per_opening | SPEC 9.6 | auditor/opening.py make_challenge | no second challenge for another entry | -
//@ protection NO_NONCE_WITHHELD breaks nonce_secret_until_named | SPEC 13.4.14 | auditor/transcript.py replay | a report on a certificate that names no audit leaves the nonce out | -
//@ protection NO_ENTRY_NAMES breaks plan_fixed_before_entry | SPEC 13.4.14 | auditor/transcript.py replay | the owner's entry names the opened audit | -
//@ protection NO_PLAN_DIGEST breaks plan_fixed_before_entry | SPEC 14.4 | auditor/verify.py _verify_named | the report's plan is the opening's subject | -
//@ protection NO_NONCE_CHECK breaks nonce_fixed_before_entry | SPEC 14.4 | auditor/verify.py _verify_named | the revealed nonce gives the opening's commitment | -
//@ protection NO_OPENING_IN_LOG breaks opened_audit_in_log | SPEC 6.4 | auditor/case.py load | the opened audit is a logged message | -
//@ protection NO_ENTRY_IN_REPORT breaks nonce_fixed_before_entry | SPEC 14.4 | auditor/verify.py _owners_entry | the report holds the owner's entry that its challenge answers, signed and naming the opened audit | -
//@ protection NO_AUDIT_OF_ENTRY breaks one_sample_per_entry | SPEC 9.6 | owner/answer.py _refuse_too_much | the owner opens records only for the audit that the answered entry of its log names | -
//@ protection NO_ONE_SAMPLE breaks one_sample_per_entry | SPEC 9.6 | owner/answer.py _refuse_too_much | the owner opens one sample for an opened audit | -

#define P_fresh_challenge 1
#define P_no_two_challenges_per_opening 2
#define P_nonce_secret_until_named 3
#define P_plan_fixed_before_entry 4
#define P_nonce_fixed_before_entry 5
#define P_opened_audit_in_log 6
#define P_one_sample_per_entry 7
#include "checks.h"

#ifndef OPENINGS
#define OPENINGS 2
#endif
#ifndef ENTRIES
#define ENTRIES 2
#endif
#define SET(i) (1 << (i))
#define IN(i, set) (((set) & SET(i)) != 0)
#define IF(condition) if :: (condition) ->
#define FI :: else fi

typedef Opening { byte plan; byte nonce; byte challenged; byte sample };  /* challenged: for which entries; sample: the seed shown */
typedef Entry { byte names; byte had_openings; byte sample };
Opening opn[OPENINGS + 1]; byte opns;
Entry ent[ENTRIES + 1]; byte ents;
byte in_log, named, revealed, owner_knows;
bool auditor_is_dishonest;
byte o, e, p, v, w;  /* scratch, 0 between steps */

#ifdef NO_ENTRY_NAMES
#define NAMES(e, o) true
#else
#define NAMES(e, o) (ent[e].names == (o))
#endif
#ifdef NO_ONE_CHALLENGE
#define FIRST_FOR(o, e) true
#else
#define FIRST_FOR(o, e) ((opn[o].challenged & ~SET(e)) == 0)
#endif
#ifdef NO_REVEALED_RULE
#define STILL_SECRET(o) true
#else
#define STILL_SECRET(o) (!IN(o, revealed) || opn[o].challenged != 0)
#endif
#ifdef NO_PLAN_DIGEST
#define PLAN_LOGGED(o, p) true
#else
#define PLAN_LOGGED(o, p) (opn[o].plan == (p))
#endif
#ifdef NO_NONCE_CHECK
#define NONCE_LOGGED(o, v) true
#else
#define NONCE_LOGGED(o, v) (opn[o].nonce == (v))
#endif
#ifdef NO_OPENING_IN_LOG
#define LOGGED(o) true
#else
#define LOGGED(o) IN(o, in_log)
#endif
#ifdef NO_AUDIT_OF_ENTRY
#define OF_ENTRY(e, o) true
#else
#define OF_ENTRY(e, o) (ent[e].names == (o))
#endif
#ifdef NO_ONE_SAMPLE
#define SAME_SAMPLE(o, v) true
#else
#define SAME_SAMPLE(o, v) (opn[o].sample == 0 || opn[o].sample == (v))
#endif
#ifdef NO_ENTRY_IN_REPORT
#define ANSWERED_ENTRY(w, e) true
#else
#define ANSWERED_ENTRY(w, e) ((w) == (e))
#endif

/* Honest or not, the owner can name any audit that it was shown, or none. What a dishonest one gains is in what it knows. */
proctype Owner() {
    do
    :: atomic { ents < ENTRIES ->
        select(o : 0 .. opns);
        ents++; ent[ents].names = o; ent[ents].had_openings = opns;
        IF(o > 0) named = named | SET(o) FI;
        printf("MSC: owner -> owner's log: entry %d, which names the opened audit %d\n", ents, o);
        o = 0 }
    od
}

proctype Auditor() {
    do
    :: atomic { !auditor_is_dishonest && opns < OPENINGS ->
        opns++; opn[opns].plan = 1; opn[opns].nonce = 1; in_log = in_log | SET(opns);
        printf("MSC: auditor -> auditor's log: opens audit %d (plan digest, nonce commitment)\n", opns);
#ifdef NO_NONCE_COMMITMENT
        owner_knows = owner_knows | SET(opns); printf("MSC: (the nonce of audit %d stands in the log)\n", opns)
#endif
        }
    :: atomic { !auditor_is_dishonest && opns > 0 && ents > 0 ->
        select(o : 1 .. opns); select(e : 1 .. ents);
        IF(NAMES(e, o) && FIRST_FOR(o, e) && STILL_SECRET(o) && !IN(e, opn[o].challenged))
            CHECK(fresh_challenge, true, !IN(o, owner_knows));
            CHECK(no_two_challenges_per_opening, true, opn[o].challenged == 0);
            CHECK(plan_fixed_before_entry, true, o <= ent[e].had_openings);
            opn[o].challenged = opn[o].challenged | SET(e);
            printf("MSC: auditor -> owner: challenge of audit %d for entry %d\n", o, e)
        FI;
        o = 0; e = 0 }
    :: atomic { !auditor_is_dishonest && opns > 0 && ents > 0 ->
        /* A report on entry e, by the auditor who opened audit o; it may come before any challenge, INCONCLUSIVE. */
        select(o : 1 .. opns); select(e : 1 .. ents);
#ifdef NO_NONCE_WITHHELD
        IF(true)
#else
        IF(ent[e].names == o)
#endif
            CHECK(nonce_secret_until_named, true, IN(o, named));
            printf("MSC: auditor: report on entry %d reveals the nonce of audit %d\n", e, o);
            revealed = revealed | SET(o); owner_knows = owner_knows | SET(o);
            HONEST_END(opn[o].challenged != 0)
        FI;
        o = 0; e = 0 }
    od
}

/* Chooses plan and nonce of values 1 and 2, and shows a report with whatever values suit it after it saw the entry. */
proctype Dishonest_auditor() {
    do
    :: atomic { auditor_is_dishonest && opns < OPENINGS ->
        select(p : 1 .. 2); select(v : 1 .. 2);
        opns++; opn[opns].plan = p; opn[opns].nonce = v;
        if
        :: in_log = in_log | SET(opns); printf("MSC: auditor -> auditor's log: opens audit %d with plan %d, nonce %d\n", opns, p, v)
        :: printf("MSC: auditor -> owner: opens audit %d with plan %d, nonce %d, not logged\n", opns, p, v)
        fi;
        p = 0; v = 0 }
    :: atomic { auditor_is_dishonest && opns > 0 && ents > 0 ->
        /* It asks the honest owner for a sample of its choice (seed v: nobody sees that it follows from no nonce, yet). */
        select(o : 1 .. opns); select(e : 1 .. ents); select(v : 1 .. 2);
        IF(OF_ENTRY(e, o) && SAME_SAMPLE(o, v))
            printf("MSC: auditor -> owner: challenge of audit %d for entry %d with seed %d; the owner opens those records\n", o, e, v);
            CHECK(one_sample_per_entry, true, ent[e].sample == 0 || ent[e].sample == v);
            opn[o].sample = v; ent[e].sample = v
        FI;
        o = 0; e = 0; v = 0 }
    :: atomic { auditor_is_dishonest && opns > 0 && ents > 0 ->
        /* The reader's choice is the auditor's: entry e, audit o, plan p, nonce v, and the entry w that the challenge answers
           (0: bytes that the auditor made up). */
        select(o : 1 .. opns); select(e : 1 .. ents); select(p : 1 .. 2); select(v : 1 .. 2); select(w : 0 .. ents);
        IF(LOGGED(o) && NAMES(e, o) && PLAN_LOGGED(o, p) && NONCE_LOGGED(o, v) && ANSWERED_ENTRY(w, e))
            printf("MSC: reader: accepts a report on entry %d, audit %d with plan %d, nonce %d, challenge for entry %d\n", e, o, p, v, w);
            CHECK(plan_fixed_before_entry, true, p == opn[o].plan && o <= ent[e].had_openings);
            CHECK(nonce_fixed_before_entry, true, v == opn[o].nonce && w == e);
            CHECK(opened_audit_in_log, true, IN(o, in_log))
        FI;
        o = 0; e = 0; p = 0; v = 0; w = 0 }
    od
}

init {
    if
    :: auditor_is_dishonest = false; printf("MSC: (the owner is dishonest)\n")
    :: auditor_is_dishonest = true; printf("MSC: (the auditor is dishonest)\n")
    fi;
    atomic { run Owner(); run Auditor(); run Dishonest_auditor() }
}
