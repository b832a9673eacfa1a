/* Claims of a certificate, of its successor, and of a receipt: none gets lost without a word.

   Two certificates of a dishonest owner; claims are about the records 1 and 2, a set of records is two bits. A certificate holds
   the root of its claims; the list that it is shown with is the intruder's choice. A successor that does not name its predecessor
   drops nothing: the earlier claims still stand. */

//@ small -
//@ property silent_drop_seen: a successor that is CONSISTENT carries or openly drops each claim of the certificate that it names
//@ property claims_as_signed: the list of claims that is audited is the one that was signed
//@ property no_record_left_out: each record that a CONSISTENT receipt's request asks for has a claim
//@ property receipt_claims_signed: a claim in a receipt is one of the certificate's
//@ protection NO_PREDECESSOR breaks silent_drop_seen | SPEC 13.4.4 | auditor/checks/binding.py check | a predecessor's claims are compared, or the check is INCONCLUSIVE | -
//@ protection NO_CLAIMS_ROOT breaks claims_as_signed | SPEC 13.4.4 | auditor/checks/binding.py check | the list of claims is compared with the signed root | -
//@ protection NO_COMPLETENESS breaks no_record_left_out | SPEC 13.4.5 | auditor/checks/completeness.py check | each requested record has a claim | -
//@ protection NO_CLAIM_PATH breaks receipt_claims_signed | SPEC 14.2 | auditor/receipts.py _verify_claims | each claim of a receipt is opened under the certificate's root | -

#define P_silent_drop_seen 1
#define P_claims_as_signed 2
#define P_no_record_left_out 3
#define P_receipt_claims_signed 4
#include "checks.h"

#define IF(condition) if :: (condition) ->
#define FI :: else fi
#define SUBSET(a, b) (((a) & ~(b)) == 0)

typedef Certificate { byte claims; byte dropped; bool names_first };
Certificate cer[3]; byte cers;
byte requested;
byte x, k, d, list, earlier;  /* scratch, 0 between steps */
bool n;

active proctype Subject() {
    atomic { select(k : 1 .. 3); requested = k; printf("MSC: subject: asks for the set of records %d\n", k); k = 0 }
}

active proctype Owner() {
    do
    :: atomic { cers < 2 ->
        select(k : 0 .. 3); d = 0; n = false;
        IF(cers == 1)
            if :: n = true; select(d : 0 .. 3) :: n = false fi
        FI;
        cers++; cer[cers].claims = k; cer[cers].dropped = d; cer[cers].names_first = n;
        printf("MSC: owner: certificate %d claims the set %d, names a predecessor: %d, drops the set %d\n", cers, k, n, d);
        k = 0; d = 0; n = false }
    od
}

active proctype Auditor() {
    do
    :: atomic { cers > 0 && requested > 0 ->
        /* The list of claims, and the predecessor's list if any is shown (4: none is), are the intruder's choice. */
        select(x : 1 .. cers); select(list : 0 .. 3); select(earlier : 0 .. 4);
#ifdef NO_CLAIMS_ROOT
        IF(true)
#else
        IF(list == cer[x].claims)
#endif
#ifdef NO_PREDECESSOR
            IF(true)
#else
            IF(!cer[x].names_first || (earlier == cer[1].claims && SUBSET(earlier, list | cer[x].dropped)))
#endif
#ifdef NO_COMPLETENESS
                IF(true)
#else
                IF(SUBSET(requested, list))
#endif
                    printf("MSC: auditor: CONSISTENT on certificate %d with the list %d, predecessor's list %d (4: none)\n", x, list, earlier);
                    CHECK(silent_drop_seen, cer[x].names_first, SUBSET(cer[1].claims, cer[x].claims | cer[x].dropped));
                    CHECK(claims_as_signed, true, list == cer[x].claims);
                    CHECK(no_record_left_out, true, SUBSET(requested, cer[x].claims));
                    HONEST_END(x == 2 && cer[x].names_first && cer[1].claims != 0 && cer[x].dropped == 0);
                    /* One claim of the receipt, about record k (bit). */
                    select(k : 1 .. 2);
#ifdef NO_CLAIM_PATH
                    IF(true)
#else
                    IF(SUBSET(k, cer[x].claims))
#endif
                        printf("MSC: reader: believes a claim about the set %d of certificate %d\n", k, x);
                        CHECK(receipt_claims_signed, true, SUBSET(k, cer[x].claims))
                    FI
                FI
            FI
        FI;
        x = 0; list = 0; earlier = 0; k = 0 }
    od
}
