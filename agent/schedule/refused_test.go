package schedule_test

import (
	"strings"
	"testing"

	"github.com/quiesced/quiesced/agent/schedule"
)

func TestWhatIsRefusedIsNamedWithItsField(t *testing.T) {
	for text, want := range map[string]string{
		"":                              `it is empty`,
		" \t\n":                         `it is empty`,
		"* * * *":                       `it has 4 fields, not five, or six with seconds`,
		"* * * * * * * *":               `it has 8 fields, not five, or six with seconds`,
		"every day at noon":             `it has 4 fields, not five, or six with seconds`,
		strings.Repeat("1,", 130) + "1": `it is longer than 256 bytes`,
		"@reboot":                       `"@reboot" is not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @noon and @hourly`,
		"@Daily UTC":                    `"@Daily" is not one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @noon and @hourly`,
		"61 * * * * *":                  `second: "61" is not a number from 0 to 59`,
		"60 * * * *":                    `minute: "60" is not a number from 0 to 59`,
		"five * * * *":                  `minute: "five" is not a number from 0 to 59`,
		"~ * * * *":                     `minute: "~" is not a number from 0 to 59`,
		"007 * * * *":                   `minute: "007" is not a number from 0 to 59`,
		"-5 * * * *":                    `minute: "-5" is not a number from 0 to 59`,
		"5- * * * *":                    `minute: "" is not a number from 0 to 59`,
		"*-5 * * * *":                   `minute: "*" is not a number from 0 to 59`,
		"1-5-9 * * * *":                 `minute: "5-9" is not a number from 0 to 59`,
		"*/0 * * * *":                   `minute: "*/0" has a step that is not a number from 1 to 99`,
		"*/100 * * * *":                 `minute: "*/100" has a step that is not a number from 1 to 99`,
		"*/ * * * *":                    `minute: "*/" has a step that is not a number from 1 to 99`,
		", * * * *":                     `minute: it is empty`,
		"1 ,2 * * * *":                  `minute: "1 ,2" has a space before a comma`,
		"1& * * * *":                    `minute: "1&" is not a number from 0 to 59`,
		"* 25 * * *":                    `hour: "25" is not a number from 0 to 24`,
		"* 1-25 * * *":                  `hour: "25" is not a number from 0 to 24`,
		"0 0 0 * *":                     `day of month: "0" is not a number from 1 to 31, -1 to -31 or L`,
		"0 0 -32 * *":                   `day of month: "-32" is not a number from 1 to 31, -1 to -31 or L`,
		"0 0 - * *":                     `day of month: "-" is not a number from 1 to 31, -1 to -31 or L`,
		"0 0 -3-5 * *":                  `day of month: "-3-5" goes from a day counted from the end to one that is not`,
		"0 0 L/2 * *":                   `day of month: "L/2" goes from a day counted from the end to one that is not`,
		"0 0 1&& * 1":                   `day of month: "1&" is not a number from 1 to 31, -1 to -31 or L`,
		"0 0 30 2 *":                    `day of month: none of the months has such a day`,
		"0 0 31 2,4 mon":                `day of month: none of the months has such a day`,
		"0 0 -30 2 *":                   `day of month and weekday: there is never such a day`,
		"0 0 1& * mon#2":                `day of month and weekday: there is never such a day`,
		"0 0 1 0 *":                     `month: "0" is not a number from 1 to 12 or a name from jan to dec`,
		"0 0 1 january *":               `month: "january" is not a number from 1 to 12 or a name from jan to dec`,
		"0 0 * * monday":                `weekday: "monday" is not a number from 0 to 7 or a name from sun to sat`,
		"0 0 * * 8":                     `weekday: "8" is not a number from 0 to 7 or a name from sun to sat`,
		"0 0 * * 01":                    `weekday: "01" is not a number from 0 to 7 or a name from sun to sat`,
		"0 0 * * L":                     `weekday: "L" is not a number from 0 to 7 or a name from sun to sat`,
		"0 0 * * mon#6":                 `weekday: "mon#6" has a # that is followed by no number from 1 to 5, -1 to -5 or L`,
		"0 0 * * mon#":                  `weekday: "mon#" has a # that is followed by no number from 1 to 5, -1 to -5 or L`,
		"0 0 * * mon-fri#2":             `weekday: "mon-fri" is not a number from 0 to 7 or a name from sun to sat`,
		"0 0 * * mon%0":                 `weekday: "mon%0" has a % that is followed by no number of weeks`,
		"0 0 * * mon%2+":                `weekday: "mon%2+" has a + that is followed by no number of weeks`,
		"0 0 * * x%2":                   `weekday: "x" is not a number from 0 to 7 or a name from sun to sat`,
		"0 7 * * * utc":                 `weekday: "utc" is not a number from 0 to 7 or a name from sun to sat`,
		"0 7 * * * Nowhere/City":        `zone: "Nowhere/City" is neither the name of a zone (America/New_York) nor an offset (+05:45)`,
		"0 7 * * * America/New_Yorkk":   `zone: "America/New_Yorkk" is neither the name of a zone (America/New_York) nor an offset (+05:45)`,
		"0 7 * * * Local":               `zone: "Local" is neither the name of a zone (America/New_York) nor an offset (+05:45)`,
		"0 7 * * * +12:00":              `zone: "+12:00" is an offset of twelve hours or more`,
		"0 0 7 * * * *":                 `zone: "*" is neither the name of a zone (America/New_York) nor an offset (+05:45)`,
		"0 7 * * *\tUTC":                `zone: "UTC" stands after a tab, not after spaces`,
		"0\n7 * * * *":                  `minute: "0\n7" is not a number from 0 to 59`,
	} {
		t.Run(text, func(t *testing.T) {
			_, err := schedule.Parse(text)
			if err == nil {
				t.Fatal("it is taken")
			}
			if got := err.Error(); !strings.HasPrefix(got, `cannot read the schedule "`) || !strings.HasSuffix(got, `": `+want) {
				t.Errorf("%s\nwant %s", got, want)
			}
		})
	}
}
