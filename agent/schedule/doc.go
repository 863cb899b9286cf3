// Package schedule reads the cron strings that a BOSH director takes for
// snapshot_schedule and self_snapshot_schedule, and says when they run next. The
// director hands them to rufus-scheduler, whose grammar (that of its library fugit) is
// wider than cron's, and this package follows it: a string that one takes the other
// takes, and both run at the same seconds.
//
// A string has the fields
//
//	[second] minute hour day-of-month month weekday [zone]
//
// separated by spaces or tabs, or is one of @yearly, @annually, @monthly, @weekly,
// @daily, @midnight, @noon and @hourly, which may be followed by a zone. A field is a
// list, separated by commas, of
//
//	5         one value
//	22-2      from one to another, past the end and on from the start where it must be
//	*         every value
//	*/15 /15  every 15th, from the lowest
//	5/15      every 15th, from 5; of weekdays only the one
//	5-40/15   every 15th of a range
//
// Months and weekdays have names, jan and mon, in any case. Hour 24 is hour 0, weekday
// 7 is Sunday. Days of the month count from the end, too: L, last and -1 are the last
// one, and 25-L a range to the end. A weekday may be the only one of its kind in a month,
// mon#1 or fri#L or fri#-2, or in every second week, mon%2 or mon%2+1; weeks are counted
// from Monday, 31 December 2018, which began week 0.
//
// Where both day-of-month and weekday say something, the day has to suit either, or
// both if an & follows one of them. A weekday field says nothing only if it is *, but a
// day-of-month or month field of the whole range says nothing, either.
//
// A zone is the name of the zone database (America/New_York) or an offset below twelve
// hours in quarters of an hour (+05:45). Without one it is UTC, as on a director, whose
// stemcell has no other; ParseIn takes another. A time that the clocks of a zone leave out
// in spring is left out, one that they show twice in autumn is there twice.
//
// Two things of rufus-scheduler are refused on purpose: ~ for a value at random, which
// would be another one at each start, and names of zones that are wrong at their end,
// which it cuts until they fit another zone. And where it loses its way this package
// keeps to the above: it takes the last day but one for the last of a month whose last
// is an hour short (Europe/Berlin, 31 March 2030), and leaves out a day, or ends with an
// error, where the clocks leave out midnight or show it twice (America/Havana). What can
// never run is refused, -30 in February, say, where it would fail at the first look.
package schedule
