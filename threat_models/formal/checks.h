/* Shared by all models. CHECK states a property where somebody accepts something; the last run's options choose what it does.
   Default: every property must hold. ONLY=n: only property n is asserted (used where a protection is removed).
   REACH=n: asserts that the antecedent of property n never happens, so that a trail shows that it does (no vacuous truth). */
#ifndef ONLY
#define ONLY 0
#endif
#ifdef REACH
#define CHECK(name, antecedent, claim) assert(!(REACH == P_##name && (antecedent)))
#else
#define CHECK(name, antecedent, claim) assert((ONLY != 0 && ONLY != P_##name) || !(antecedent) || (claim))
#endif
#ifdef REACH
#define HONEST_END(condition) assert(!(REACH == 99 && (condition)))
#else
#define HONEST_END(condition) skip
#endif
