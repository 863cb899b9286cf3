package boshvm

// ParseSettings, ParseUpdates, ParseSpec and ParseCID are the parsers, for fuzzing.
func ParseSettings(text []byte) error { return errOf(parseJSON[settings](text)) }
func ParseUpdates(text []byte) error  { return errOf(parseJSON[updates](text)) }
func ParseSpec(text []byte) error     { return errOf(parseJSON[spec](text)) }
func ParseCID(text []byte) error      { return errOf(parseCID(text)) }

func errOf[T any](_ T, err error) error { return err }
