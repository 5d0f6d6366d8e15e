"""Short texts as in a handbook, with what in them is a secret or personal data. Written for this test; all made up."""

FOUND_IN = [
    ("Write to jane.doe@miller-family.net if the order is late.", {"email"}),
    ("My private address is m_osei+shop@mail.co.uk.", {"email"}),
    ("Mail: Bob Miller <bob@miller-family.org>", {"email"}),
    ("Call me on +44 20 7946 0958 after six.", {"phone number"}),
    ("Ms Adeyemi's mobile is 07700 900123.", {"phone number"}),
    ("Her number: (415) 555-2671.", {"phone number"}),
    ("Telefon: +49 30 901820", {"phone number"}),
    ("Fax 020 7946 0018, attention Mr Reed", {"phone number"}),
    ("Pay to IBAN DE89 3704 0044 0532 0130 00.", {"IBAN"}),
    ("His account is GB82WEST12345698765432.", {"IBAN"}),
    ("Charge card 4111 1111 1111 1111, expiry 04/29.", {"card number"}),
    ("The card 5500-0000-0000-0004 was declined.", {"card number"}),
    ("Amex 378282246310005 on file.", {"card number"}),
    ("Her SSN is 536-90-4399.", {"social security number"}),
    ("SSN: 219-09-9998 was sent by mistake.", {"social security number"}),
    ("aws_access_key_id = AKIAIOSFODNN7EXAMPLQ", {"secret"}),
    ("export GITHUB_TOKEN=ghp_" + "16C7e42F292c6912E7710c838347Ae178B4a", {"secret"}),
    ("The Slack bot uses xoxb-" + "123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx", {"secret"}),
    ("-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEA75Kt\nqk1V\n-----END RSA PRIVATE " + "KEY-----", {"secret"}),
    ("postgres://admin:hunter2secret@db.internal:5432/app", {"secret"}),
    ("password = 'Tr0ub4dor&3x'", {"secret"}),
    ("The admin password is: Winter2026!Larch", {"secret"}),
    (
        "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4ifQ"
        ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U", {"secret"},
    ),
    ("sk_live_" + "4eC39HqLyjWDarjtT1zdp7dc is the Stripe key", {"secret"}),
    ("api_key: 7f9c24e8bd5a4f11a9c0e6d2b8437f10", {"secret"}),
    ("Set OPENAI_API_KEY to sk-proj-" + "abcdEFGHijklMNOPqrstT3BlbkFJuvwxYZ0123456789abcd", {"secret"}),
    ("pypi-" + "AgEIcHlwaS5vcmcCJDEyMzQ1Njc4LTEyMzQtMTIzNC0xMjM0LTEyMzQ1Njc4OTBhYgACKlszLCJhYmNkZWZnaCJd uploads", {"secret"}),
]  # fmt: skip

NOTHING_IN = """
When the proofer fails at night call extension 417 and move the dough to the cold room.
Ring 1-800-555-0199 for the on-call manager.
Write to press@larkfield.example or post@example.com.
The order number is 2024-0917-3345 and the batch 88213.
Between 2019 and 2023 revenue rose from 1,204,000 to 1,310,500 pounds.
Version 10.15.7 of the client is supported until 2027-03-31.
A password must have at least 14 characters and one digit.
Passwords are changed every 180 days.
The token is valid for 15 minutes and is refreshed by the client.
Reset your password in the portal under Security, Passwords.
The API key is sent in the header X-Api-Key.
Store secrets in the vault, never in a repository.
What is the password length for service accounts?
Part 44-2210-118 replaces part 44-2210-117.
The commit is 9fceb02d0ae598e95dc970b74767f19372d61af8.
The checksum sha256 is e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.
The order id is 550e8400-e29b-41d4-a716-446655440000.
Room 3.12 seats 24 people, room 4.01 seats 60.
ISBN 978-3-16-148410-0 is in the library.
The meeting is on 12/04/2026 at 10:30 in room 204.
The limit is 10 000 000 bytes or 12 500 rows.
The VAT number of the firm is GB 123 4567 89.
We ship to the postcode SW1A 1AA in two days.
The site has coordinates 51.5007, -0.1246.
Dial 9 for an outside line and 0 for reception.
The desk of Support is open from 08:00 to 18:00.
The config has timeout=3600 and retries=5.
See section 4.2.1.3 of the handbook.
The pump runs at 230 V, 16 A and 3.2 kW.
The serial number LK-2210-55-0931 is on the back.
Set temperature to 0.000125 and seed to 1234567890.
The address of the office is 12 Mill Street, Larkfield.
Base64 text such as SGVsbG8gd29ybGQ= decodes to a greeting.
Our calls come from the address range 203.0.113.64/27, in case of a firewall.
At Larkfield it is 13 hours.
""".strip().splitlines()
