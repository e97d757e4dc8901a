// Opened from a disk, a page may not read other pages: the search then shows its hits without the
// passages around them, instead of failing to fetch each one.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
