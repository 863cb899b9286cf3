// Package retention decides which snapshots stay and which go, by a policy of how
// many are kept. It looks at nothing but what it is given, and deletes nothing.
//
// A count keeps the newest snapshot of each of that many hours, days, weeks, months
// or years, where those without a snapshot do not count; last keeps that many of the
// newest. A snapshot may be kept by several counts at once. Periods are UTC's, weeks
// ISO 8601's.
//
//   - A policy without anything keeps all, one with an age alone all that is younger.
//   - Of a period the newest clean snapshot is kept, and the newest where none is
//     clean: what is taken dirty in the evening does not push out the morning's.
//   - With any count the newest is kept, too: what was just taken does not go at once.
//   - An age removes whatever is older, whatever the counts.
//   - The newest clean snapshot of each disk is kept, whatever took it and however
//     old it is.
//   - Each disk's snapshots are counted for themselves, and of these the ones of a
//     trigger that has a policy of its own.
//   - A run's snapshots go together: if one is kept, all are.
//   - What is not to be decided on (Entry.Apart) is kept, and takes no other's place.
//   - A snapshot from the future tells of a clock that was ahead. It is kept until its
//     time has come, and takes no other's place.
//
// A plan that was carried out asks for nothing more at the same time, nor does one
// that was carried out in part ask for anything else. Raising a count or an age never
// removes more, unless it is the policy's first count, without which it keeps all.
package retention
