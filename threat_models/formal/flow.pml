/* The whole flow, from commitment to receipt, with spliced, replayed and forged messages.

   What is shown within the bounds: a receipt or report that a reader accepts is by whom it says, about what was audited,
   and in the order that the protocol promises. Logs are append-only here (logs.pml is about logs that are not), and a nonce
   is only a name (challenge.pml is about who knows it).

   A message is a record of its fields; "leaf of x" is x's number, which nobody can know before x is there: a perfect hash.
   A signature is the field `key`: only who has the key makes a message with it. `maker` and the numbers called `had_...` are
   ghosts: no party reads them, only the properties do. The intruder is the network: it chooses every file that anybody is
   handed, from all that was ever sent, and makes whatever its keys allow. */

//@ small COMMITMENTS=2 REQUESTS=2
//@ small CERTIFICATES=2 OPENINGS=2 REPORTS=2
//@ full REQUESTS=2 CERTIFICATES=2 OPENINGS=2 REPORTS=2
//@ full COMMITMENTS=2 CERTIFICATES=2
//@ property auth_request: a request that counts as the requester's own was signed by the requester
//@ property auth_certificate: an honest owner's certificate and commitment were made by the owner
//@ property auth_report: an accepted report or receipt was made by the auditor, and as a report or receipt
//@ property key_use_separation: a log's key, stolen or lent, makes no statement that counts
//@ property bind_receipt_to_report: an accepted receipt is about the very request, certificate and commitment that the report's audit saw
//@ property bind_report_to_bundle: the files that a report is shown with are those that were audited
//@ property bind_base_to_commitment: the audited files hold the base model that was committed
//@ property bind_answer_to_challenge: the challenged records were opened in answer to this certificate's challenge
//@ property no_replay_certificate: a certificate counts for the commitment and the request that it was made for, and for no other
//@ property order_commit_before_request: the commitment's bytes were fixed before the request was signed
//@ property order_request_before_certificate: the request was there before the certificate was signed
//@ property order_opening_before_certificate: plan and nonce were in the log before the certificate was signed
//@ property order_in_one_log: in one log, commitment, request and certificate stand in this order
//@ property bind_opening_to_request: the audit was opened for the request that the certificate answers
//@ protection NO_SIGNATURE_CHECK breaks auth_certificate | SPEC 6.4 | protocol/trust.py Trust.verify | signatures are verified by keys of the message's role | -
//@ protection NO_ROLE_OF_KEY breaks auth_request | SPEC 6.4 | auditor/checks/authenticity.py check | a request is the requester's own by its key, not by what it says | -
//@ protection NO_AUDITOR_SIGNATURE breaks auth_report | SPEC 14.2 | auditor/receipts.py verify | report and receipt are signed by the auditor | -
//@ protection NO_DOMAIN_SEPARATION breaks auth_report | SPEC 6.2 | protocol/statement.py Statement.about | a statement is read only as the message that its predicate type names | -
//@ protection NO_KEY_SEPARATION breaks key_use_separation | SPEC 4.1 | protocol/trust.py verify_separate | one key serves one purpose | -
//@ protection NO_LOG_ORDER breaks order_in_one_log | SPEC 13.4.3 | auditor/checks/freshness.py check | commitment, requests and certificate are compared by index | -
//@ protection NO_REQUEST_SUBJECT breaks order_commit_before_request | SPEC 13.4.3 | auditor/checks/freshness.py check | a request names its commitment | COMMITMENTS=2
//@ protection NO_COMMITMENT_NAMED breaks no_replay_certificate | SPEC 13.4.3 | auditor/checks/freshness.py check | a certificate names its commitment | COMMITMENTS=2
//@ protection NO_REQUEST_NAMED+NO_OPENING_REQUESTS breaks no_replay_certificate | SPEC 13.4.5 | auditor/checks/completeness.py check | a certificate names its requests, and the audit that it names was opened for them | REQUESTS=2
//@ protection NO_REQUEST_NAMED+NO_OPENING_NAMED+NO_OPENING_REQUESTS breaks order_request_before_certificate | SPEC 9.5 | protocol/messages/certificate.py Certificate.parse | three names, each of which alone keeps this order | REQUESTS=2
//@ protection NO_OPENING_NAMED breaks order_opening_before_certificate | SPEC 13.4.14 | auditor/transcript.py replay | the owner's entry names the opened audit | -
//@ protection NO_OPENING_REQUESTS breaks bind_opening_to_request | SPEC 13.4.3 | auditor/checks/freshness.py check | an audit counts for the requests that it was opened for | REQUESTS=2
//@ protection NO_MANIFEST_DIGEST breaks bind_report_to_bundle | SPEC 13.1 | auditor/case.py load | every file is compared with the signed manifest | -
//@ protection NO_BASE_DIGEST breaks bind_base_to_commitment | SPEC 13.4.4 | auditor/checks/binding.py check | the base model is compared with the commitment | -
//@ protection NO_ANSWER_NAMED breaks bind_answer_to_challenge | SPEC 13.4.14 | auditor/transcript.py _read_answer | an answer names its challenge | CERTIFICATES=2 OPENINGS=2
//@ protection NO_RECEIPT_NAMES breaks bind_receipt_to_report | SPEC 14.2 | auditor/receipts.py verify | a receipt names report, certificate, commitment and request | CERTIFICATES=2 OPENINGS=2 REPORTS=2

#define P_auth_request 1
#define P_auth_certificate 2
#define P_auth_report 3
#define P_key_use_separation 4
#define P_bind_receipt_to_report 5
#define P_bind_report_to_bundle 6
#define P_bind_base_to_commitment 7
#define P_bind_answer_to_challenge 8
#define P_no_replay_certificate 9
#define P_order_commit_before_request 10
#define P_order_request_before_certificate 11
#define P_order_opening_before_certificate 12
#define P_order_in_one_log 13
#define P_bind_opening_to_request 14
#include "checks.h"

/* Bounds: so many messages of each kind in one run, whoever makes them. */
#ifndef COMMITMENTS
#define COMMITMENTS 1
#endif
#ifndef REQUESTS
#define REQUESTS 1
#endif
#ifndef CERTIFICATES
#define CERTIFICATES 1
#endif
#ifndef OPENINGS
#define OPENINGS 1
#endif
#ifndef REPORTS
#define REPORTS 1
#endif

/* Keys. The auditor's log key is in the intruder's hands from the start: its loss must not make statements. */
#define OWNER 1
#define REQUESTER 2
#define AUDITOR 3
#define INTRUDER 4
#define LOG_KEY 5
/* Whoever is not the owner and plays it: the owner's key is the intruder's if the owner is dishonest. */
#define PLAYED_BY(m) (owner_is_dishonest || m == OWNER)

/* Sets of numbers 1 and 2, as bits. */
#define SET(i) (1 << (i))
#define IN(i, set) (((set) & SET(i)) != 0)

/* Commitment c is to base model c; files f are a bundle on base model f. `logged`: in the owner's log. */
typedef Commitment { byte key; bool logged };
typedef Request { byte key; byte commitment; bool behalf; bool in_owners_log; byte had_commitments; byte after };
typedef Certificate { byte key; byte commitment; byte request; byte opening; byte files; bool logged;
                      byte had_requests; byte had_openings; byte after; byte after_requests };
typedef Challenge { byte opening; byte certificate };
typedef Report { byte certificate; byte opening; byte saw_commitment; byte saw_request; byte saw_files };

/* Number 0 is "none". Whether a message is genuine can be told from its key and `owner_is_dishonest`: nobody lends keys. */
Commitment com[COMMITMENTS + 1]; byte coms;
Request req[REQUESTS + 1]; byte reqs;
byte opened_for[OPENINGS + 1]; byte opns;
Certificate cer[CERTIFICATES + 1]; byte cers;
Challenge cha[OPENINGS + 1]; byte chas;
byte answered;  /* the challenges that an honest owner answered */
/* A receipt names its report and what that is about; it is made in the same step, and has the same number. Number 0 is
   the one that the intruder can make at any time, about anything, with the log's key. */
Report rep[REPORTS + 1]; byte reps;
bool owner_is_dishonest;
byte logged_commitments, logged_requests;
/* Scratch, always 0 between steps. */
byte c, r, o, x, h, a, f, p, t; bool behalf;

#ifdef NO_SIGNATURE_CHECK
#define BY_OWNER(k) true
#define ANSWERED(a) true
#else
#define ANSWERED(a) (owner_is_dishonest || IN(a, answered))
#define BY_OWNER(k) ((k) == OWNER)
#endif

#if defined(NO_AUDITOR_SIGNATURE) || defined(NO_KEY_SEPARATION)
/* number 0 is made with the log's key, which a reader takes for the auditor's, or does not look at */
#define FIRST_REPORT 0
#else
#define FIRST_REPORT 1
#endif

#ifdef NO_ROLE_OF_KEY
#define OWN_REQUEST(r) (!req[r].behalf)
#else
#define OWN_REQUEST(r) (req[r].key == REQUESTER)
#endif

/* Signed by somebody who may, and not the owner's under the subject's name (checks/authenticity.py). */
#ifdef NO_ROLE_OF_KEY
#define REQUEST_COUNTS(r) (req[r].key == REQUESTER || BY_OWNER(req[r].key))
#else
#define REQUEST_COUNTS(r) (req[r].key == REQUESTER || (BY_OWNER(req[r].key) && req[r].behalf))
#endif

#ifdef NO_REQUEST_SUBJECT
#define REQUEST_ABOUT(r, c) true
#else
#define REQUEST_ABOUT(r, c) (req[r].commitment == (c))
#endif
#ifdef NO_COMMITMENT_NAMED
#define CERTIFICATE_ABOUT(x, c) true
#else
#define CERTIFICATE_ABOUT(x, c) (cer[x].commitment == (c))
#endif
#ifdef NO_REQUEST_NAMED
#define CERTIFICATE_ANSWERS(x, r) true
#else
#define CERTIFICATE_ANSWERS(x, r) (cer[x].request == (r))
#endif
#ifdef NO_OPENING_NAMED
#define CERTIFICATE_OPENED(x, o) true
#else
#define CERTIFICATE_OPENED(x, o) (cer[x].opening == (o))
#endif
#ifdef NO_OPENING_REQUESTS
#define OPENED_FOR(o, r) true
#else
#define OPENED_FOR(o, r) (opened_for[o] == (r))
#endif
#ifdef NO_ANSWER_NAMED
#define ANSWERS_IT(a, h) true
#else
#define ANSWERS_IT(a, h) ((a) == (h))
#endif
#ifdef NO_MANIFEST_DIGEST
#define FILES_SIGNED(x, f) true
#else
#define FILES_SIGNED(x, f) (cer[x].files == (f))
#endif
#ifdef NO_BASE_DIGEST
#define BASE_COMMITTED(c, f) true
#else
#define BASE_COMMITTED(c, f) ((c) == (f))
#endif
#ifdef NO_LOG_ORDER
#define IN_ORDER(c, r, x) true
#else
#define IN_ORDER(c, r, x) (IN(c, cer[x].after) && (!req[r].in_owners_log || (IN(c, req[r].after) && IN(r, cer[x].after_requests))))
#endif
#ifdef NO_RECEIPT_NAMES
#define RECEIPT_NAMES(t, p, x, c, r) true
#else
#define RECEIPT_NAMES(t, p, x, c, r) (t == 0 || (t == p && rep[t].certificate == x && rep[t].saw_commitment == c && rep[t].saw_request == r))
#endif

#define MAKE_REQUEST(k, c, for_it, public) \
    reqs++; req[reqs].key = k; req[reqs].commitment = c; req[reqs].behalf = for_it; req[reqs].in_owners_log = public; \
    req[reqs].had_commitments = coms; req[reqs].after = logged_commitments; \
    logged_requests = logged_requests | (public * SET(reqs))
#define MAKE_CERTIFICATE(k, c, r, o, f) \
    cers++; cer[cers].key = k; cer[cers].commitment = c; cer[cers].request = r; cer[cers].opening = o; cer[cers].files = f; \
    cer[cers].had_requests = reqs; cer[cers].had_openings = opns
#define LOG_COMMITMENT(c) com[c].logged = true; logged_commitments = logged_commitments | SET(c)
#define LOG_CERTIFICATE(x) cer[x].logged = true; cer[x].after = logged_commitments; cer[x].after_requests = logged_requests

/* No step may block half way: a choice that is refused ends in the state where it began. */
#define IF(condition) if :: (condition) ->
#define FI :: else fi

/* The subject trusts its slip; it has a key of its own, and sends its request through the auditor's program. */
proctype Subject() {
    do
    :: atomic { reqs < REQUESTS && coms > 0 ->
        select(c : 1 .. coms);
        MAKE_REQUEST(REQUESTER, c, false, false);
        printf("MSC: subject -> auditor's log: request %d about commitment %d\n", reqs, c);
        c = 0 }
    od
}

/* The owner's program. It logs what it signs at once. */
proctype Owner() {
    do
    :: atomic { !owner_is_dishonest && coms == 0 ->
        coms++; com[coms].key = OWNER; LOG_COMMITMENT(coms);
        printf("MSC: owner -> owner's log: commitment %d to base model 1\n", coms) }
    :: atomic { !owner_is_dishonest && cers < CERTIFICATES && opns > 0 ->
        select(o : 1 .. opns); r = opened_for[o]; c = req[r].commitment;
        IF(com[c].key == OWNER && REQUEST_COUNTS(r))
            MAKE_CERTIFICATE(OWNER, c, r, o, c); LOG_CERTIFICATE(cers);
            printf("MSC: owner -> owner's log: certificate %d for request %d, commitment %d, opened audit %d, files %d\n",
                   cers, r, c, o, c)
        FI;
        r = 0; o = 0; c = 0 }
    :: atomic { !owner_is_dishonest && chas > 0 ->
        select(h : 1 .. chas);
        IF(cer[cha[h].certificate].key == OWNER && !IN(h, answered))
            answered = answered | SET(h);
            printf("MSC: owner -> owner's log: answer to challenge %d\n", h)
        FI;
        h = 0 }
    od
}

/* The auditor's program, honest here (challenge.pml has one that is not). It logs what it signs at once. */
proctype Auditor() {
    do
    :: atomic { opns < OPENINGS && reqs > 0 ->
        select(r : 1 .. reqs);
        opns++; opened_for[opns] = r;
        printf("MSC: auditor -> auditor's log: opens audit %d for request %d (plan digest, nonce commitment)\n", opns, r);
        r = 0 }
    :: atomic { chas < opns && cers > 0 ->
        select(o : 1 .. opns); select(x : 1 .. cers);
        /* one opened audit has one challenge */
        IF(CERTIFICATE_OPENED(x, o) && OPENED_FOR(o, cer[x].request) && (chas == 0 || cha[1].opening != o))
            chas++; cha[chas].opening = o; cha[chas].certificate = x;
            printf("MSC: auditor -> auditor's log: challenge %d of audit %d for certificate %d\n", chas, o, x)
        FI;
        o = 0; x = 0 }
    :: atomic { reps < REPORTS && chas > 0 ->
        /* The bundle on the table is the intruder's choice: messages, proofs, and files f. A dishonest owner makes an
           answer when it is needed; `a` is the challenge that the answer names. */
        select(h : 1 .. chas); o = cha[h].opening; select(x : 1 .. cers);
        IF(BY_OWNER(cer[x].key) && cer[x].logged && cha[h].certificate == x && CERTIFICATE_OPENED(x, o))
            select(c : 1 .. coms); select(r : 1 .. reqs);
            IF(BY_OWNER(com[c].key) && com[c].logged && REQUEST_COUNTS(r) && CERTIFICATE_ABOUT(x, c) && REQUEST_ABOUT(r, c)
               && CERTIFICATE_ANSWERS(x, r) && IN_ORDER(c, r, x) && OPENED_FOR(o, r))
                select(a : 1 .. chas); select(f : 1 .. 2);
                IF(ANSWERED(a) && ANSWERS_IT(a, h) && FILES_SIGNED(x, f) && BASE_COMMITTED(c, f))
                    reps++; rep[reps].certificate = x; rep[reps].opening = o;
                    rep[reps].saw_commitment = c; rep[reps].saw_request = r; rep[reps].saw_files = f;
                    printf("MSC: network -> auditor: bundle of commitment %d, request %d, certificate %d, files %d; answer to challenge %d\n",
                           c, r, x, f, a);
                    printf("MSC: auditor -> auditor's log: report %d CONSISTENT on certificate %d; receipt %d for request %d\n",
                           reps, x, reps, r);
                    CHECK(bind_answer_to_challenge, true, a == h);
                    CHECK(bind_opening_to_request, true, opened_for[o] == r)
                FI
            FI
        FI;
        c = 0; r = 0; o = 0; x = 0; h = 0; a = 0; f = 0 }
    od
}

/* Makes what its keys allow, out of names of what is there (a dishonest owner's key does all that an untrusted one does);
   commitments and certificates may be logged long after they were made. Reports and answers it makes when they are needed. */
proctype Intruder() {
    do
    :: atomic { coms < COMMITMENTS && (owner_is_dishonest || coms > 0) ->
        coms++; com[coms].key = (owner_is_dishonest -> OWNER : INTRUDER);
        printf("MSC: intruder: makes commitment %d to base model %d\n", coms, coms) }
    :: atomic { reqs < REQUESTS && coms > 0 ->
        if :: behalf = true :: behalf = false fi;
        select(c : 1 .. coms); MAKE_REQUEST((owner_is_dishonest -> OWNER : INTRUDER), c, behalf, true);
        printf("MSC: intruder -> owner's log: makes request %d about commitment %d, on behalf: %d\n",
               reqs, c, behalf);
        c = 0; behalf = false }
    :: atomic { cers < CERTIFICATES && reqs > 0 ->
        select(c : 1 .. coms); select(r : 1 .. reqs); select(o : 0 .. opns); select(f : 1 .. 2);
        MAKE_CERTIFICATE((owner_is_dishonest -> OWNER : INTRUDER), c, r, o, f);
        printf("MSC: intruder: makes certificate %d for request %d, commitment %d, opened audit %d, files %d\n",
               cers, r, c, o, f);
        c = 0; r = 0; o = 0; f = 0 }
    :: atomic { coms > 0 -> select(c : 1 .. coms);
        IF(!com[c].logged) LOG_COMMITMENT(c); printf("MSC: intruder -> owner's log: commitment %d\n", c) FI; c = 0 }
    :: atomic { cers > 0 -> select(x : 1 .. cers);
        IF(!cer[x].logged) LOG_CERTIFICATE(x); printf("MSC: intruder -> owner's log: certificate %d\n", x) FI; x = 0 }
    od
}

/* A reader of receipts and reports, who remembers nothing: subject, court, or anybody. It changes no state. */
proctype Reader() {
    do
    :: atomic { reps >= FIRST_REPORT && cers > 0 ->
        /* SPEC 14.2: all five envelopes are the intruder's choice. */
        select(p : FIRST_REPORT .. reps); select(x : 1 .. cers); select(t : FIRST_REPORT .. reps);
        IF(BY_OWNER(cer[x].key) && cer[x].logged && (p == 0 || rep[p].certificate == x))
            select(c : 1 .. coms); select(r : 1 .. reqs);
            IF(BY_OWNER(com[c].key) && com[c].logged && REQUEST_COUNTS(r) && CERTIFICATE_ABOUT(x, c) && CERTIFICATE_ANSWERS(x, r)
               && REQUEST_ABOUT(r, c) && RECEIPT_NAMES(t, p, x, c, r))
                printf("MSC: reader: accepts receipt %d with report %d, certificate %d, commitment %d, request %d\n", t, p, x, c, r);
                CHECK(auth_request, OWN_REQUEST(r), req[r].key == REQUESTER);
                CHECK(auth_certificate, !owner_is_dishonest, cer[x].key == OWNER && com[c].key == OWNER);
                CHECK(auth_report, true, t != 0 && p != 0);
                CHECK(key_use_separation, true, t != 0 && p != 0);
                CHECK(bind_receipt_to_report, true,
                      t == p && rep[p].saw_request == r && rep[p].saw_commitment == c && rep[p].certificate == x);
                CHECK(bind_base_to_commitment, true, rep[p].saw_files == c);
                CHECK(no_replay_certificate, true, cer[x].commitment == c && cer[x].request == r);
                CHECK(order_commit_before_request, true, c <= req[r].had_commitments);
                CHECK(order_request_before_certificate, true, r <= cer[x].had_requests);
                CHECK(order_opening_before_certificate, true, rep[p].opening != 0 && rep[p].opening <= cer[x].had_openings);
                CHECK(order_in_one_log, req[r].in_owners_log,
                      IN(c, req[r].after) && IN(r, cer[x].after_requests));
                HONEST_END(!owner_is_dishonest && p != 0 && cer[x].key == OWNER && req[r].key == REQUESTER)
            FI
        FI;
        t = 0; p = 0; x = 0; c = 0; r = 0 }
    :: atomic { reps >= FIRST_REPORT && cers > 0 ->
        /* SPEC 14.4, with the bundle's files beside it. */
        select(p : FIRST_REPORT .. reps); select(x : 1 .. cers); select(f : 1 .. 2);
        IF(BY_OWNER(cer[x].key) && cer[x].logged && (p == 0 || rep[p].certificate == x) && FILES_SIGNED(x, f))
            printf("MSC: reader: accepts report %d on certificate %d for files %d\n", p, x, f);
            CHECK(auth_report, true, p != 0);
            CHECK(bind_report_to_bundle, true, rep[p].saw_files == f)
        FI;
        p = 0; x = 0; f = 0 }
#ifdef NO_DOMAIN_SEPARATION
    :: atomic { chas > 0 ->
        /* Another statement by the auditor that names a certificate, read as a report on it. */
        select(h : 1 .. chas);
        printf("MSC: reader: accepts challenge %d as a report on certificate %d\n", h, cha[h].certificate);
        CHECK(auth_report, true, false);
        h = 0 }
#endif
    od
}

init {
    if
    :: owner_is_dishonest = false; printf("MSC: (the owner is honest; the intruder has a key that nobody trusts)\n")
    :: owner_is_dishonest = true; printf("MSC: (the owner is the intruder)\n")
    fi;
    atomic { run Subject(); run Owner(); run Auditor(); run Intruder(); run Reader() }
}
